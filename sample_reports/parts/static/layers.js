// The layers of the maps on pages of errors, in the model's order; audit/report/maps.py says how packed.
"use strict";
const LAYERS = "eNp1zlELgjAUhuH/sutdtLMpXVeXFRF0JRLDrARzYRrRr2/7Eh068YCTvQefJGGZqd5nwThb2wNtGF9wodzEGBGlPGGVqR+IVrrJ7nv7pcviq5vCVOGFOi9bLBzz7SmcPI0pkez052DPRXVzvxddKsnNP4WRPGMogpFmjKEFGKk3hhIYaWKkLhUxZjBKzxiKYJQzxtACjLI3hhIY5cQo+bJ7PJ/yfOMANjVjG8dwqd41XFOE+2v7yi/22r6xr3gUD+Oi9AcyoapB";
