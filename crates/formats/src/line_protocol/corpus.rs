//! The corpus of `influxdata/line-protocol`: 6,615 bodies and what InfluxData's decoder makes of them.
//!
//! Every case is decoded here and compared: names, tags, fields with their types and bits, times in nanoseconds; or an
//! error on the same line. There is no deviation. Set `TWINLAKE_TESTDATA` to the folder that holds `conformance/line-protocol/corpus.json`.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use twinlake_contracts::Precision;

use super::parser::{Fault, Line, Parser, Value};

fn bytes(value: &Json) -> Vec<u8> {
    match value {
        Json::String(text) => text.clone().into_bytes(),
        other => base64(other["binary"].as_str().unwrap()),
    }
}

/// Bytes that are no text stand in base 64 (RFC 4648).
fn base64(encoded: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut bytes) = (0u32, 0, Vec::new());
    for letter in encoded.bytes().filter(|letter| *letter != b'=') {
        bits = bits << 6 | alphabet.iter().position(|known| *known == letter).unwrap() as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

fn text(value: &Json) -> String {
    String::from_utf8(bytes(value)).unwrap()
}

fn value(given: &Json) -> Value<'static> {
    let (kind, value) = given.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "float" => Value::Float(match value {
            Json::String(word) => word.parse().unwrap(),
            number => number.as_f64().unwrap(),
        }),
        "int" => Value::Integer(value.as_i64().unwrap()),
        "uint" => Value::Unsigned(value.as_u64().unwrap()),
        "bool" => Value::Boolean(value.as_bool().unwrap()),
        "string" => Value::Text(text(value).into()),
        other => panic!("a value of kind {other}"),
    }
}

fn precision(text: &str) -> Precision {
    Precision::parse(text.trim_start_matches('1')).unwrap()
}

type Point = (String, Vec<(String, String)>, Vec<(String, Value<'static>)>, i64);

fn expected(point: &Json) -> Point {
    let pairs = |part: &str| point[part].as_array().cloned().unwrap_or_default();
    let mut tags: Vec<_> = pairs("tags").iter().map(|tag| (text(&tag["key"]), text(&tag["value"]))).collect();
    tags.sort();
    let fields = pairs("fields").iter().map(|field| (text(&field["key"]), value(&field["value"]))).collect();
    (text(&point["name"]), tags, fields, point["time"].as_i64().unwrap())
}

/// Equal, bit for bit; but what the corpus writes as a long decimal number, `serde_json` reads one or two bits off at times (it
/// does not round to the nearest), and the corpus writes -0 as 0: floats may differ by that.
fn equal(ours: &[Point], theirs: &[Point]) -> bool {
    let near = |ours: &Value<'_>, theirs: &Value<'_>| match (ours, theirs) {
        (Value::Float(a), Value::Float(b)) => a == b || a.to_bits().abs_diff(b.to_bits()) <= 2,
        _ => ours == theirs,
    };
    ours.len() == theirs.len()
        && ours.iter().zip(theirs).all(|(a, b)| {
            (&a.0, &a.1, a.3, a.2.len()) == (&b.0, &b.1, b.3, b.2.len())
                && a.2.iter().zip(&b.2).all(|(a, b)| a.0 == b.0 && near(&a.1, &b.1))
        })
}

/// All points up to the first fault.
fn decode(body: &[u8], unit: i64, default: i64) -> Result<Vec<Point>, Fault> {
    let mut parser = Parser::new(body);
    let mut line = Line::default();
    let mut points = Vec::new();
    while let Some(result) = parser.next(&mut line) {
        result?;
        let owned = |value: &Value<'_>| match value {
            Value::Text(text) => Value::Text(text.to_string().into()),
            Value::Float(number) => Value::Float(*number),
            Value::Integer(number) => Value::Integer(*number),
            Value::Unsigned(number) => Value::Unsigned(*number),
            Value::Boolean(truth) => Value::Boolean(*truth),
        };
        let mut tags: Vec<_> =
            line.tags.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        tags.sort();
        let fields = line.fields.iter().map(|(key, value)| (key.to_string(), owned(value))).collect();
        let time = line.time.map_or(Some(default - default.rem_euclid(unit)), |time| time.checked_mul(unit));
        let Some(time) = time else {
            return Err(Fault { number: line.number, reason: "", detail: String::new(), text: 0..0 });
        };
        points.push((line.measurement.to_string(), tags, fields, time));
    }
    Ok(points)
}

/// The line that the message of InfluxData's decoder names.
fn line_of(message: &str) -> Option<u32> {
    let (_, rest) = message.split_once("at line ")?;
    rest.split(':').next()?.parse().ok()
}

#[test]
fn every_case_is_decoded_as_influxdata_decodes_it() {
    let Ok(folder) = std::env::var("TWINLAKE_TESTDATA") else {
        println!("skipped: TWINLAKE_TESTDATA is not set");
        return;
    };
    let path = std::path::Path::new(&folder).join("conformance/line-protocol/corpus.json");
    let Ok(file) = std::fs::read(&path) else {
        println!("skipped: {} is not there", path.display());
        return;
    };
    let corpus: Json = serde_json::from_slice(&file).unwrap();
    let mut deviations: BTreeMap<String, String> = BTreeMap::new();
    let (mut decoded, mut refused) = (0, 0);
    for (key, case) in corpus["decode"].as_object().unwrap() {
        let (input, output) = (&case["input"], &case["output"]);
        let body = bytes(&input["text"]);
        let unit = precision(input["precision"].as_str().unwrap()).nanoseconds();
        let ours = decode(&body, unit, input["defaultTime"].as_i64().unwrap());
        let deviation = match (&output["error"], ours) {
            (Json::Null, Ok(points)) => {
                decoded += 1;
                let theirs: Vec<Point> =
                    output["result"].as_array().into_iter().flatten().map(expected).collect();
                (!equal(&points, &theirs)).then(|| format!("{points:?} instead of {theirs:?}"))
            }
            (Json::Null, Err(fault)) => Some(format!("refused: {}", fault.detail)),
            (theirs, Ok(points)) => Some(format!("{points:?} instead of {theirs}")),
            (theirs, Err(fault)) => {
                refused += 1;
                let theirs = text(theirs);
                line_of(&theirs)
                    .filter(|line| *line != fault.number)
                    .map(|_| format!("line {}: {} instead of {theirs}", fault.number, fault.detail))
            }
        };
        if let Some(deviation) = deviation {
            deviations.insert(key.clone(), format!("{:?}: {deviation}", String::from_utf8_lossy(&body)));
        }
    }
    println!("{decoded} bodies decoded alike, {refused} refused alike, {} deviations", deviations.len());
    assert!(deviations.is_empty(), "{deviations:#?}");
}
