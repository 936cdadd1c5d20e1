// The layers of the maps on pages of errors, in the model's order; audit/report/maps.py says how packed.
"use strict";
const LAYERS = "eNqLjlZKzs8rizdU0lFyBjKMXJR0DHQMTUDI2AiEDE1jdaKVCvLzc8CKfBMrAoDszLx0kFJDqFJDMzACKwWbZ4RkHjZFYPOMMMwz0rGAQiSzjJHMQigwMgWrSCstTk0BKgDSmfl5SjrGUGdDEEhRLADhUzt/";
