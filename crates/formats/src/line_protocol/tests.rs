use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use twinlake_contracts::{COLUMN_ROLE, ORIGINAL_NAME};

use super::*;

const RECEIVED: i64 = 1_539_059_573_123_456;

fn decoded(precision: Precision, body: &str) -> DecodedBody {
    decode("plant", precision, &Bytes::from(body.to_owned()), RECEIVED).unwrap()
}

fn refused(body: &DecodedBody) -> Vec<(u64, &str, String)> {
    let parts = body.refused.iter();
    parts
        .map(|part| (part.place, part.reason.as_ref(), String::from_utf8_lossy(&part.text).into_owned()))
        .collect()
}

fn times(rows: &RecordBatch) -> Vec<i64> {
    rows.column(0).as_primitive::<TimestampMicrosecondType>().values().to_vec()
}

#[test]
fn measurements_become_tables_with_typed_columns() {
    let body = decoded(
        Precision::Seconds,
        "cpu,host=a usage=1.5,cores=4i,up=t,note=\"x\\ny\",total=7u 10\n\
         mem,host=a free=1i 11\n\
         # a comment\n\n\
         cpu,host=b,rack=r1 usage=2.5 12\n",
    );
    assert!(body.refused.is_empty());
    let [cpu, mem] = body.tables.as_slice() else { panic!("{body:?}") };
    assert_eq!(cpu.table, RowsFor::Measurement { database: "plant".into(), measurement: "cpu".into() });
    assert_eq!((cpu.places.as_slice(), mem.places.as_slice()), ([1, 5].as_slice(), [2].as_slice()));
    let schema = cpu.rows.schema();
    let columns: Vec<(String, String, Option<&String>)> = schema
        .fields()
        .iter()
        .map(|field| (field.name().clone(), field.data_type().to_string(), field.metadata().get(COLUMN_ROLE)))
        .collect();
    let (tag, field) = (&"tag".to_owned(), &"field".to_owned());
    let expected = [
        ("ts", "Timestamp(µs, \"UTC\")", None),
        ("host", "Utf8", Some(tag)),
        ("usage", "Float64", Some(field)),
        ("cores", "Int64", Some(field)),
        ("up", "Boolean", Some(field)),
        ("note", "Utf8", Some(field)),
        ("total", "Int64", Some(field)),
        ("rack", "Utf8", Some(tag)),
    ];
    let expected: Vec<_> = expected.iter().map(|(a, b, c)| (a.to_string(), b.to_string(), *c)).collect();
    assert_eq!(columns, expected);
    assert_eq!(schema.field(1).metadata()[ORIGINAL_NAME], "host");
    assert_eq!(times(&cpu.rows), [10_000_000, 12_000_000]);
    assert_eq!(cpu.rows["usage"].as_primitive::<Float64Type>().values(), &[1.5, 2.5]);
    assert_eq!(cpu.rows["note"].as_string::<i32>().value(0), "x\ny");
    assert!(cpu.rows["cores"].is_null(1) && cpu.rows["rack"].is_null(0));
}

#[test]
fn a_line_at_fault_stops_no_other() {
    let body = decoded(
        Precision::Nanoseconds,
        "a v=1\nb\r\nc v=1u,w=18446744073709551615u\nd v=\"open\ne v=1 5\nf v=nan 5\ng v=1 99999999999999999999\nh,t=1,t=2 v=1\ni v=1",
    );
    let expected = [
        (2, "invalid_line", "b"),
        (3, "out_of_range", "c v=1u,w=18446744073709551615u"),
        (4, "invalid_line", "d v=\"open"),
        (6, "invalid_line", "f v=nan 5"),
        (7, "invalid_line", "g v=1 99999999999999999999"),
        (8, "invalid_line", "h,t=1,t=2 v=1"),
    ];
    let expected: Vec<_> = expected.iter().map(|(a, b, c)| (*a, *b, c.to_string())).collect();
    assert_eq!(refused(&body), expected);
    let landed: Vec<u32> = body.tables.iter().flat_map(|table| table.places.clone()).collect();
    assert_eq!(landed, [1, 5, 9]);
    assert!(body.refused[2].detail.contains("closing quote"), "{:?}", body.refused[2]);
}

#[test]
fn lines_are_counted_through_texts_of_many_lines() {
    let body = decoded(Precision::Nanoseconds, "a v=\"1\n2\n3\" 1\nb v=x\na v=\"4\n\"\n\nc");
    assert_eq!(
        refused(&body),
        [(4, "invalid_line", "b v=x".to_owned()), (8, "invalid_line", "c".to_owned())]
    );
    assert_eq!(body.tables[0].places, [1, 5]);
    let source = Bytes::from_static(b"a\r\nb\n\nd");
    let found = texts(&source, &[1, 2, 2, 4, 9]);
    let found: Vec<&[u8]> = found.iter().map(AsRef::as_ref).collect();
    assert_eq!(found, [b"a".as_slice(), b"b", b"b", b"d", b""]);
}

#[test]
fn text_that_is_not_utf8_refuses_its_line_only() {
    let body = Bytes::from_static(b"a v=1\nb,t=\xff v=1\nc v=\"\xe4\"\nd v=\"\xc3\xa4\"");
    let body = decode("plant", Precision::Nanoseconds, &body, RECEIVED).unwrap();
    let places: Vec<_> = body.refused.iter().map(|part| (part.place, part.reason.as_ref())).collect();
    assert_eq!(places, [(2, "invalid_utf8"), (3, "invalid_utf8")]);
    assert_eq!(body.tables.len(), 2);
}

#[test]
fn times_come_from_every_precision() {
    for (precision, text, expected) in [
        (Precision::Nanoseconds, "1999", 1),
        (Precision::Nanoseconds, "-1", -1),
        (Precision::Microseconds, "7", 7),
        (Precision::Milliseconds, "7", 7_000),
        (Precision::Seconds, "7", 7_000_000),
        (Precision::Minutes, "7", 420_000_000),
        (Precision::Hours, "-7", -25_200_000_000),
        (Precision::Nanoseconds, "", RECEIVED),
        (Precision::Seconds, "", 1_539_059_573_000_000),
        (Precision::Hours, "", 1_539_057_600_000_000),
    ] {
        let body = decoded(precision, &format!("m v=1 {text}"));
        assert_eq!(times(&body.tables[0].rows), [expected], "{text} in {precision:?}");
    }
    let body = decoded(Precision::Hours, "m v=1 9223372036854775807");
    assert_eq!(refused(&body)[0].1, "out_of_range");
}

#[test]
fn values_of_another_type_have_a_batch_of_their_own() {
    let body =
        decoded(Precision::Nanoseconds, "m v=1\nm v=1i\nm v=2\nm w=1,v=\"x\"\nm v=2i,v=3i,v=4i\nm w=2");
    assert!(body.refused.is_empty());
    let found: Vec<(String, Vec<u32>)> = body
        .tables
        .iter()
        .map(|table| (table.rows["v"].data_type().to_string(), table.places.clone()))
        .collect();
    let expected = [("Float64", vec![1, 3, 6]), ("Int64", vec![2, 5]), ("Utf8", vec![4])]
        .map(|(a, b)| (a.to_owned(), b));
    assert_eq!(found, expected);
    assert_eq!(body.tables[1].rows["v"].as_primitive::<Int64Type>().value(1), 4, "the last value counts");
}

#[test]
fn a_tag_and_a_field_of_one_name_are_two_columns() {
    let body = decoded(Precision::Nanoseconds, "m,a=x a=1");
    assert_eq!(body.tables[0].rows.num_columns(), 3);
}

#[test]
fn a_body_of_nothing_but_faults_is_refused_as_a_whole() {
    let error = decode("plant", Precision::Nanoseconds, &Bytes::from("x\n".repeat(20_000)), 0).unwrap_err();
    assert!(error.to_string().starts_with("too_many_faults"), "{error}");
}

#[test]
fn many_tags_are_no_trap() {
    use std::fmt::Write as _;
    let mut tags = String::new();
    (0..50_000).for_each(|number| write!(tags, ",t{number}=x").unwrap());
    assert_eq!(decoded(Precision::Nanoseconds, &format!("m{tags} v=1")).tables[0].rows.num_columns(), 50_002);
    let body = decoded(Precision::Nanoseconds, &format!("m{tags},t7=x v=1"));
    assert!(body.refused[0].detail.contains("'t7' is there twice"));
}
