//! The XML cases of GEOS and JTS (LGPL-2.1 data, not part of this repository) against the SQL functions.
//!
//! Reads `$TWINLAKE_TESTDATA/conformance/geos-xml`. What fails is listed in `tests/geos-known-failures.txt` with the
//! reason of each class; a case that newly fails or newly passes fails the test. `BLESS=1` rewrites the list, keeping
//! the class of a line that was there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use datafusion::common::ScalarValue;
use geo::coords_iter::CoordsIter;
use geo::{Area, BoundingRect, Coord, Geometry};

use crate::functions::construct::normal;
use crate::shape::Shape;
use crate::testing::invoke;

/// One operation of a case.
struct Case {
    /// `general/TestSimple.xml 3 1 isSimple`: file, number of the case, number of the test in it, operation.
    name: String,
    operation: String,
    a: Option<String>,
    b: Option<String>,
    arguments: [Option<String>; 3],
    expected: String,
    grid: Option<f64>,
}

/// The text between a start tag and its end tag, and what follows; attributes of the start tag.
fn element<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let mut from = 0;
    loop {
        let start = from + text[from..].find(&format!("<{name}"))?;
        let after = &text[start + name.len() + 1..];
        if !after.starts_with([' ', '>', '\n', '\r', '\t', '/']) {
            from = start + 1;
            continue;
        }
        let close = after.find('>')?;
        if after[..close].ends_with('/') {
            return Some((&after[..close], "", &after[close + 1..]));
        }
        let end = after.find(&format!("</{name}>"))?;
        return Some((&after[..close], &after[close + 1..end], &after[end + name.len() + 3..]));
    }
}

fn attribute(attributes: &str, name: &str) -> Option<String> {
    let start = attributes.find(&format!("{name}="))? + name.len() + 1;
    let quote = attributes[start..].chars().next()?;
    let rest = &attributes[start + 1..];
    Some(rest[..rest.find(quote)?].to_owned())
}

fn without_comments(mut text: &str) -> String {
    let mut result = String::new();
    while let Some(start) = text.find("<!--") {
        result.push_str(&text[..start]);
        match text[start..].find("-->") {
            Some(end) => text = &text[start + end + 3..],
            None => return result,
        }
    }
    result.push_str(text);
    result.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")
}

fn cases(root: &Path) -> Vec<Case> {
    let mut files: Vec<PathBuf> = ["general", "validate"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(root.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "xml"))
        .collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let text = without_comments(&String::from_utf8_lossy(&std::fs::read(&file).unwrap()));
        let label = file.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let grid = element(&text, "precisionModel")
            .and_then(|(attributes, ..)| attribute(attributes, "scale"))
            .and_then(|scale| scale.parse::<f64>().ok())
            .map(|scale| 1.0 / scale);
        let mut rest = text.as_str();
        let mut number = 0;
        while let Some((_, case, after)) = element(rest, "case") {
            rest = after;
            number += 1;
            let geometry = |name| element(case, name).map(|(_, text, _)| text.trim().to_owned());
            let (a, b) = (geometry("a"), geometry("b"));
            let mut tests = case;
            let mut index = 0;
            while let Some((attributes, expected, after)) = element(tests, "op") {
                tests = after;
                index += 1;
                let operation = attribute(attributes, "name").unwrap();
                all.push(Case {
                    name: format!("{label} {number} {index} {operation}"),
                    operation: operation.to_lowercase(),
                    a: a.clone(),
                    b: b.clone(),
                    arguments: [1, 2, 3].map(|i| attribute(attributes, &format!("arg{i}"))),
                    expected: expected.trim().to_owned(),
                    grid,
                });
            }
        }
    }
    all
}

fn shape(text: &str) -> Result<Shape, String> {
    let compact: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if compact.bytes().all(|byte| byte.is_ascii_hexdigit()) && compact.len() > 8 {
        let bytes: Vec<u8> = (0..compact.len() / 2)
            .map(|i| u8::from_str_radix(&compact[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        return Shape::from_wkb(&bytes).map(|(shape, _)| shape).map_err(|error| error.to_string());
    }
    Shape::from_wkt(&compact).map(|(shape, _)| shape).map_err(|error| error.to_string())
}

fn wkb(text: &str) -> Result<ScalarValue, String> {
    Ok(ScalarValue::Binary(Some(shape(text)?.encode())))
}

fn run(case: &Case) -> Result<(), String> {
    let argument = |index: usize| -> Result<ScalarValue, String> {
        match case.arguments[index].as_deref() {
            Some("A" | "a") => wkb(case.a.as_deref().unwrap_or_default()),
            Some("B" | "b") => wkb(case.b.as_deref().unwrap_or_default()),
            other => Err(format!("argument {other:?}")),
        }
    };
    let number = |index: usize| -> Result<ScalarValue, String> {
        let text = case.arguments[index].as_deref().unwrap_or_default();
        text.parse().map(|number| ScalarValue::Float64(Some(number))).map_err(|_| format!("number {text}"))
    };
    let text = |value: &str| ScalarValue::Utf8(Some(value.to_owned()));
    let operation = case.operation.as_str();
    let predicate = match operation {
        "equalstopo" => "st_equals",
        "isvalid" => "st_isvalid",
        "issimple" => "st_issimple",
        "equalsexact" => "st_orderingequals",
        "intersects" | "disjoint" | "contains" | "within" | "covers" | "coveredby" | "touches"
        | "crosses" | "overlaps" => &format!("st_{operation}"),
        _ => "",
    };
    if !predicate.is_empty() {
        let mut arguments = vec![argument(0)?];
        if case.arguments[1].is_some() {
            arguments.push(argument(1)?);
        }
        return same_text(&invoke(predicate, &arguments)?.to_string(), &case.expected);
    }
    match operation {
        "relate" => {
            let pattern = text(case.arguments[2].as_deref().unwrap_or_default());
            same_text(
                &invoke("st_relate", &[argument(0)?, argument(1)?, pattern])?.to_string(),
                &case.expected,
            )
        }
        "iswithindistance" => same_text(
            &invoke("st_dwithin", &[argument(0)?, argument(1)?, number(2)?])?.to_string(),
            &case.expected,
        ),
        "equalsnorm" => {
            let norm = |value| invoke("st_normalize", &[value]);
            let equal = invoke("st_orderingequals", &[norm(argument(0)?)?, norm(argument(1)?)?])?;
            same_text(&equal.to_string(), &case.expected)
        }
        "distance" => {
            let found = match invoke("st_distance", &[argument(0)?, argument(1)?])? {
                ScalarValue::Float64(None) => f64::INFINITY,
                ScalarValue::Float64(Some(value)) => value,
                other => return Err(other.to_string()),
            };
            same_number(found, &case.expected)
        }
        "minclearance" => match invoke("st_minimumclearance", &[argument(0)?])? {
            ScalarValue::Float64(Some(value)) => same_number(value.min(f64::MAX), &case.expected),
            other => Err(other.to_string()),
        },
        "buffer" | "buffermitredjoin" => {
            let mut arguments = vec![argument(0)?, number(1)?];
            if operation == "buffermitredjoin" {
                arguments.push(text("join=mitre"));
            }
            same_area(
                &geometry(invoke("st_buffer", &arguments)?)?,
                &shape(&case.expected)?.to_plane(),
                &number(1)?,
            )
        }
        _ => {
            let (name, mut arguments): (&str, Vec<ScalarValue>) = match operation {
                "union" if case.arguments[1].is_none() => ("st_unaryunion", vec![argument(0)?]),
                "intersection" | "intersectionng" | "intersectionsr" => {
                    ("st_intersection", vec![argument(0)?, argument(1)?])
                }
                "union" | "unionng" | "unionsr" => ("st_union", vec![argument(0)?, argument(1)?]),
                "difference" | "differenceng" | "differencesr" => {
                    ("st_difference", vec![argument(0)?, argument(1)?])
                }
                "symdifference" | "symdifferenceng" | "symdifferencesr" => {
                    ("st_symdifference", vec![argument(0)?, argument(1)?])
                }
                "getcentroid" => ("st_centroid", vec![argument(0)?]),
                "getinteriorpoint" => ("st_pointonsurface", vec![argument(0)?]),
                "convexhull" => ("st_convexhull", vec![argument(0)?]),
                "getboundary" => ("st_boundary", vec![argument(0)?]),
                "minclearanceline" => ("st_minimumclearanceline", vec![argument(0)?]),
                "densify" => ("st_segmentize", vec![argument(0)?, number(1)?]),
                "simplifydp" => ("st_simplify", vec![argument(0)?, number(1)?]),
                "simplifytp" => ("st_simplifypreservetopology", vec![argument(0)?, number(1)?]),
                other => return Err(format!("{other} is not known here")),
            };
            if operation.ends_with("sr") {
                let scale = number(2)?;
                let ScalarValue::Float64(Some(scale)) = scale else { return Err("scale".to_owned()) };
                arguments.push(ScalarValue::Float64(Some(1.0 / scale)));
            } else if let (Some(grid), true) =
                (case.grid, matches!(operation, "intersection" | "union" | "difference" | "symdifference"))
            {
                arguments.push(ScalarValue::Float64(Some(grid)));
            }
            if case.expected == "exception" {
                return match invoke(name, &arguments) {
                    Ok(value) => Err(format!("{value}, not an error")),
                    Err(_) => Ok(()),
                };
            }
            let found = invoke(name, &arguments)?;
            // What an empty geometry does not have is null here.
            if found.is_null() && shape(&case.expected)?.is_empty() {
                return Ok(());
            }
            same_geometry(&geometry(found)?, &shape(&case.expected)?)
        }
    }
}

fn same_text(found: &str, expected: &str) -> Result<(), String> {
    if found.eq_ignore_ascii_case(expected.trim()) { Ok(()) } else { Err(format!("{found}, not {expected}")) }
}

fn same_number(found: f64, expected: &str) -> Result<(), String> {
    let wanted: f64 = match expected.trim() {
        "inf" | "Inf" => f64::INFINITY,
        text => text.parse().map_err(|_| format!("'{text}' is not a number"))?,
    };
    if found == wanted || (found - wanted).abs() <= 1e-9 * wanted.abs().max(1.0) {
        Ok(())
    } else {
        Err(format!("{found}, not {wanted}"))
    }
}

fn geometry(value: ScalarValue) -> Result<Shape, String> {
    match value {
        ScalarValue::Binary(Some(bytes)) => {
            Shape::from_wkb(&bytes).map(|(s, _)| s).map_err(|e| e.to_string())
        }
        other => Err(format!("{other} is not a geometry")),
    }
}

/// The same in canonical order, coordinates to a part in 10^9; empty geometries are all the same.
fn same_geometry(found: &Shape, expected: &Shape) -> Result<(), String> {
    if found.is_empty() && expected.is_empty() {
        return Ok(());
    }
    let canonical = |shape: &Shape| normal(&same_start(&normal(&rounded(&shape.to_plane()))));
    let (a, b) = (canonical(found), canonical(expected));
    let (x, y): (Vec<Coord>, Vec<Coord>) = (a.coords_iter().collect(), b.coords_iter().collect());
    let scale = y.iter().fold(1.0_f64, |most, c| most.max(c.x.abs()).max(c.y.abs()));
    let close = |(p, q): (&Coord, &Coord)| (p.x - q.x).hypot(p.y - q.y) <= 1e-9 * scale;
    let same_structure =
        Shape::of(&a).to_wkt(None).replace(|c: char| c.is_ascii_digit() || "-.e".contains(c), "")
            == Shape::of(&b).to_wkt(None).replace(|c: char| c.is_ascii_digit() || "-.e".contains(c), "");
    if same_structure && x.len() == y.len() && x.iter().zip(&y).all(close) {
        return Ok(());
    }
    Err(format!("{}\n      not {}", Shape::of(&a).to_wkt(Some(6)), Shape::of(&b).to_wkt(Some(6))))
}

/// Closed lines from their smallest place, in the direction of the smaller neighbour.
fn same_start(geometry: &Geometry) -> Geometry {
    crate::functions::shaping::change_lines(geometry, &|line| {
        if !line.is_closed() || line.0.len() < 4 {
            return line.clone();
        }
        let mut coords = line.0.clone();
        coords.pop();
        let order = |a: &Coord, b: &Coord| crate::topology::polygonize::order(a, b);
        let smallest = (0..coords.len()).min_by(|a, b| order(&coords[*a], &coords[*b])).unwrap();
        coords.rotate_left(smallest);
        if order(&coords[1], &coords[coords.len() - 1]).is_gt() {
            coords[1..].reverse();
        }
        coords.push(coords[0]);
        geo::LineString::new(coords)
    })
}

/// Digits that rounding may differ in must not decide the canonical order.
fn rounded(geometry: &Geometry) -> Geometry {
    use geo::MapCoords;
    let scale = geometry.coords_iter().fold(1.0_f64, |most, c| most.max(c.x.abs()).max(c.y.abs()));
    let unit = scale * 1e-10;
    geometry.map_coords(|c| Coord { x: (c.x / unit).round() * unit, y: (c.y / unit).round() * unit })
}

/// Buffers may differ by where their arcs have corners: area and bounds to a hundredth of the distance's share.
fn same_area(found: &Shape, expected: &Geometry, distance: &ScalarValue) -> Result<(), String> {
    let ScalarValue::Float64(Some(distance)) = distance else { return Err("distance".to_owned()) };
    let plane = found.to_plane();
    let (a, b) = (plane.unsigned_area(), expected.unsigned_area());
    let bounds = match (plane.bounding_rect(), expected.bounding_rect()) {
        (Some(p), Some(q)) => (p.min().x - q.min().x)
            .abs()
            .max((p.min().y - q.min().y).abs())
            .max((p.max().x - q.max().x).abs())
            .max((p.max().y - q.max().y).abs()),
        (None, None) => 0.0,
        _ => f64::INFINITY,
    };
    if (a - b).abs() <= 0.012 * b.max(1e-12) && bounds <= 0.012 * distance.abs().max(1e-9) {
        return Ok(());
    }
    Err(format!("area {a}, not {b}; bounds off by {bounds}"))
}

const BASELINE: &str = "tests/geos-known-failures.txt";

#[test]
fn geos_xml() {
    let Some(root) =
        std::env::var_os("TWINLAKE_TESTDATA").map(|path| PathBuf::from(path).join("conformance/geos-xml"))
    else {
        println!("skipped: TWINLAKE_TESTDATA is not set");
        return;
    };
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join(BASELINE);
    let baseline = std::fs::read_to_string(&path).unwrap_or_default();
    for line in baseline.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let (name, class) = line.rsplit_once(" | ").unwrap_or((line, "?"));
        known.insert(name.to_owned(), class.to_owned());
    }
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut failed: BTreeMap<String, String> = BTreeMap::new();
    let all = cases(&root);
    for case in &all {
        let count = counts.entry(case.operation.clone()).or_default();
        match run(case) {
            Ok(()) => count.0 += 1,
            Err(why) => {
                count.1 += 1;
                failed.insert(case.name.clone(), why);
            }
        }
    }
    let mut report = String::new();
    for (operation, (passed, failed)) in &counts {
        writeln!(report, "{operation:20} {passed:5} passed {failed:4} failed").unwrap();
    }
    println!("{report}{} cases, {} passed, {} failed", all.len(), all.len() - failed.len(), failed.len());
    for (name, why) in &failed {
        println!("{name} | {}\n      {why}", known.get(name).map_or("NEW", String::as_str));
    }
    if std::env::var_os("BLESS").is_some() {
        let mut text = String::new();
        for line in baseline.lines().filter(|line| line.starts_with('#')) {
            writeln!(text, "{line}").unwrap();
        }
        for name in failed.keys() {
            writeln!(text, "{name} | {}", known.get(name).map_or("?", String::as_str)).unwrap();
        }
        std::fs::write(&path, text).unwrap();
        return;
    }
    assert_eq!(all.len(), 8_766, "the data set is another one");
    let fresh: Vec<&String> = failed.keys().filter(|name| !known.contains_key(*name)).collect();
    let fixed: Vec<&String> = known.keys().filter(|name| !failed.contains_key(*name)).collect();
    assert!(fresh.is_empty(), "newly failing: {fresh:#?}");
    assert!(fixed.is_empty(), "passing now, take them off {BASELINE}: {fixed:#?}");
}

/// The same geometries written as WKT, WKB and EWKB in both byte orders read as the same.
#[test]
fn wkb_and_wkt_matrix() {
    let Some(root) =
        std::env::var_os("TWINLAKE_TESTDATA").map(|path| PathBuf::from(path).join("conformance/wkb-wkt"))
    else {
        println!("skipped: TWINLAKE_TESTDATA is not set");
        return;
    };
    let read = |file: &str| -> Vec<String> {
        std::fs::read_to_string(root.join(file))
            .unwrap()
            .lines()
            .skip(1)
            .map(|line| line.split('\t').nth(2).unwrap_or_default().trim_matches('"').to_owned())
            .collect()
    };
    let texts = read("example-wkt.tsv");
    let mut compared = 0;
    for file in ["example-wkb-le.tsv", "example-wkb-be.tsv", "example-ewkb-le.tsv", "example-ewkb-be.tsv"] {
        for (row, (text, bytes)) in texts.iter().zip(read(file)).enumerate() {
            if text.is_empty() || bytes.is_empty() || bytes == "NA" {
                continue;
            }
            let (from_text, from_bytes) = (shape(text).unwrap(), shape(&bytes).unwrap());
            // An empty geometry says nothing of its members' dimensions in text.
            assert_eq!(from_text.to_wkt(None), from_bytes.to_wkt(None), "{file} row {row}");
            let extended = file.contains("ewkb");
            let flavour = if extended {
                crate::shape::Flavour::Extended { srid: None }
            } else {
                crate::shape::Flavour::Iso
            };
            let written =
                crate::functions::ewkb::hexadecimal(&from_bytes.to_wkb(flavour, file.contains("-be")));
            assert_eq!(Shape::from_wkb(&hex(&written)).unwrap(), Shape::from_wkb(&hex(&bytes)).unwrap());
            assert_eq!(written.len(), bytes.len(), "{file} row {row}");
            compared += 1;
        }
    }
    assert!(compared > 200, "{compared}");
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}
