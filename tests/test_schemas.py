"""The columns that users and other programs read."""

import pyarrow as pa

from audit.schemas import SCHEMAS, embeddings_schema, make_frame, predictions_schema, records


def test_scores_and_embeddings_are_lists_of_one_length():
    assert predictions_schema(3).field("scores").type == pa.list_(pa.float32(), 3)
    assert embeddings_schema(5).field("embedding").type == pa.list_(pa.float32(), 5)


def test_every_table_of_images_begins_with_the_image_id():
    for schema in (predictions_schema(2), embeddings_schema(4), SCHEMAS["explanations"]):
        assert schema.names[0] == "image_id"
        assert schema.field("image_id").type == pa.int64()


def test_a_frame_without_rows_has_its_types_and_lists_stay_lists():
    schema = pa.schema([("number", pa.int32()), ("ids", pa.list_(pa.int64()))])
    assert make_frame([], schema)["number"].dtype == "int32"
    (row,) = records(make_frame([{"number": 1, "ids": [3, 4]}], schema))
    assert (row["number"], list(row["ids"])) == (1, [3, 4])
