//! TNTP: networks and trip tables of the Transportation Networks for Research collection.
//!
//! A text of metadata tags (`<NUMBER OF NODES> 24`), then rows that end in `;`; `~` begins a comment. A network has a
//! link a row, in the order init node, term node, capacity, length, free-flow time, B, power, speed, toll, link type,
//! or in the order that a `~ init_node term_node …` line names. Trips are `Origin n` lines, each followed by
//! `destination : flow;` pairs. Numbers keep the file's own units, which differ from network to network: a column
//! `free_flow_time_s` holds what the file calls free-flow time, be it minutes or hundredths of an hour.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch};
use twinlake_contracts::{Error, Place, Result};

/// The fields of a network row, in the format's own order.
const FIELDS: [&str; 10] = [
    "init_node",
    "term_node",
    "capacity",
    "length",
    "free_flow_time",
    "b",
    "power",
    "speed",
    "toll",
    "link_type",
];
/// A row must go at least as far as the power; speed, toll and type may be left out.
const NEEDED_FIELDS: usize = 7;
/// No network of this kind comes near; a damaged count must not make us reserve memory for it.
const LARGEST_COUNT: i64 = 10_000_000;

/// Reads a network: `links` (link_id counting rows from 1, from_node, to_node, capacity_vph, length_m,
/// free_flow_time_s, b, power, toll) and `nodes` (node_id from 1 to the number of nodes; through is false below the
/// first through node, where traffic may begin and end but not pass). Units are the file's own. `file` names the text
/// in errors, which show the line and what is wrong in it. A file with fewer or more rows than it announces is refused.
pub fn read_network(text: &str, file: &str) -> Result<BTreeMap<String, RecordBatch>> {
    let (head, lines) = Header::read(text, file)?;
    let nodes = head.count("NUMBER OF NODES")?;
    let first_through = head.optional_count("FIRST THRU NODE")?.unwrap_or(1);
    let mut places: [Option<usize>; FIELDS.len()] = std::array::from_fn(Some);
    let (mut from, mut to) = (Vec::new(), Vec::new());
    let mut numbers: [Vec<f64>; 6] = Default::default(); // capacity, length, free-flow time, b, power, toll
    for line in lines {
        if let Some(comment) = line.text.trim_start().strip_prefix('~') {
            if let Some(named) = columns_named(comment) {
                places = named;
            }
            continue;
        }
        let cells = line.cells();
        if cells.is_empty() {
            continue;
        }
        if let Some((field, _)) = FIELDS[..NEEDED_FIELDS]
            .iter()
            .zip(&places)
            .find(|(_, place)| place.is_none_or(|at| at >= cells.len()))
        {
            return Err(
                line.error(format!("a link row of {} fields has no {field}", cells.len()), line.whole())
            );
        }
        let cell = |field: usize| places[field].and_then(|at| cells.get(at).copied());
        let mut ends = [0_i64; 2];
        for (field, end) in ends.iter_mut().enumerate() {
            if let Some(cell) = cell(field) {
                *end = line.node(cell, FIELDS[field], nodes)?;
            }
        }
        from.push(ends[0]);
        to.push(ends[1]);
        for (field, column) in [2, 3, 4, 5, 6, 8].into_iter().zip(&mut numbers) {
            column.push(cell(field).map_or(Ok(0.0), |cell| line.number(cell, FIELDS[field]))?);
        }
    }
    if let Some(announced) = head.optional_count("NUMBER OF LINKS")?
        && announced != from.len() as i64
    {
        return Err(
            head.error("NUMBER OF LINKS", format!("{announced} links announced, {} found", from.len()))
        );
    }
    let [capacity, length, free_flow_time, b, power, toll] = numbers;
    let float = |values: Vec<f64>| Arc::new(Float64Array::from(values)) as ArrayRef;
    let integer = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
    let links = RecordBatch::try_from_iter([
        ("link_id", integer((1..=from.len() as i64).collect())),
        ("from_node", integer(from)),
        ("to_node", integer(to)),
        ("capacity_vph", float(capacity)),
        ("length_m", float(length)),
        ("free_flow_time_s", float(free_flow_time)),
        ("b", float(b)),
        ("power", float(power)),
        ("toll", float(toll)),
    ])?;
    let through: BooleanArray = (1..=nodes).map(|node| Some(node >= first_through)).collect();
    let nodes = RecordBatch::try_from_iter([
        ("node_id", integer((1..=nodes).collect())),
        ("through", Arc::new(through) as ArrayRef),
    ])?;
    Ok(BTreeMap::from([("links".to_owned(), links), ("nodes".to_owned(), nodes)]))
}

/// Reads a trip table: `demand` with origin, destination, flow_vph (in the file's unit), a row a pair in the file's
/// order, zeros and trips within a zone included. A file whose trips differ from its announced total by more than a
/// thousandth is refused: part of it is missing.
pub fn read_trips(text: &str, file: &str) -> Result<RecordBatch> {
    let (head, lines) = Header::read(text, file)?;
    let zones = head.optional_count("NUMBER OF ZONES")?.unwrap_or(i64::MAX);
    let (mut origins, mut destinations, mut flows) = (Vec::new(), Vec::new(), Vec::new());
    let mut origin = None;
    for line in lines {
        let mut rest = line.content();
        if let Some(after) = strip_word(rest, "origin") {
            let (number, others) = split_word(after);
            origin = Some(line.node(number, "origin", zones)?);
            rest = others;
        }
        for pair in rest.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
            let Some((destination, flow)) = pair.split_once(':') else {
                return Err(line.error("a pair 'destination : flow;' is expected", pair));
            };
            let Some(origin) = origin else {
                return Err(line.error("a pair before the first 'Origin' line", pair));
            };
            origins.push(origin);
            destinations.push(line.node(destination.trim(), "destination", zones)?);
            flows.push(line.number(flow.trim(), "flow")?);
        }
    }
    if let Some(announced) = head.optional_number("TOTAL OD FLOW")? {
        let found: f64 = flows.iter().sum();
        if announced > 0.0 && (found - announced).abs() > 1e-3 * announced {
            let message = format!("a total flow of {announced} announced, {found} found");
            return Err(head.error("TOTAL OD FLOW", message));
        }
    }
    Ok(RecordBatch::try_from_iter([
        ("origin", Arc::new(Int64Array::from(origins)) as ArrayRef),
        ("destination", Arc::new(Int64Array::from(destinations)) as ArrayRef),
        ("flow_vph", Arc::new(Float64Array::from(flows)) as ArrayRef),
    ])?)
}

/// One line and where it is, so that every error can show it.
#[derive(Clone, Copy)]
struct Line<'a> {
    file: &'a str,
    number: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    /// The line without its comment.
    fn content(&self) -> &'a str {
        self.text.split('~').next().unwrap_or_default().trim()
    }

    /// Fields between white space, up to the `;`.
    fn cells(&self) -> Vec<&'a str> {
        self.content().split(';').next().unwrap_or_default().split_whitespace().collect()
    }

    fn whole(&self) -> &'a str {
        self.text.trim()
    }

    fn number(&self, cell: &'a str, field: &str) -> Result<f64> {
        match cell.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(self.error(format!("{field} '{cell}' is not a finite number"), cell)),
        }
    }

    /// A node number from 1 to `last`; some files write `3.0` for 3.
    fn node(&self, cell: &'a str, field: &str, last: i64) -> Result<i64> {
        let whole = cell.parse::<i64>().ok().or_else(|| {
            let number = cell.parse::<f64>().ok()?;
            (number.fract() == 0.0 && number.abs() < 1e15).then_some(number as i64)
        });
        match whole {
            Some(node) if (1..=last).contains(&node) => Ok(node),
            Some(node) => Err(self.error(format!("{field} {node} is not a number from 1 to {last}"), cell)),
            None => Err(self.error(format!("{field} '{cell}' is not a whole number"), cell)),
        }
    }

    /// An error that shows `part`, a slice of this line.
    fn error(&self, message: impl Into<String>, part: &'a str) -> Error {
        // Where `part` lies in the line, by address, so that the right one of two equal fields is marked.
        let offset = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let before = self.text.get(..offset).unwrap_or_default();
        Error::config(message.into()).at(Place {
            file: Some(PathBuf::from(self.file)),
            line: self.number,
            column: before.chars().count() + 1,
            text: self.text.replace('\t', " "),
            length: part.chars().count().max(1),
        })
    }
}

/// The metadata: tag, value and line.
struct Header<'a> {
    file: &'a str,
    tags: BTreeMap<String, (&'a str, Line<'a>)>,
}

impl<'a> Header<'a> {
    /// Takes the tags off the front; what is left are the lines after `<END OF METADATA>` (or, in files that leave it
    /// out, all lines without a tag).
    fn read(text: &'a str, file: &'a str) -> Result<(Self, Vec<Line<'a>>)> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut tags = BTreeMap::new();
        let mut lines = Vec::new();
        let mut ended = false;
        for (index, text) in text.lines().enumerate() {
            let line = Line { file, number: index + 1, text };
            let Some(tag) = text.trim_start().strip_prefix('<').filter(|_| !ended) else {
                lines.push(line);
                continue;
            };
            let Some((name, value)) = tag.split_once('>') else {
                return Err(line.error("a metadata tag is not closed by '>'", line.whole()));
            };
            let name = name.split_whitespace().collect::<Vec<_>>().join(" ").to_uppercase();
            if name == "END OF METADATA" {
                ended = true;
            } else {
                tags.insert(name, (value.split('~').next().unwrap_or_default().trim(), line));
            }
        }
        if tags.is_empty() {
            return Err(Error::config(
                "this is not a TNTP file: it has no metadata tags, such as <NUMBER OF ZONES>",
            )
            .at(Place { file: Some(PathBuf::from(file)), ..Place::default() }));
        }
        Ok((Self { file, tags }, lines))
    }

    fn count(&self, name: &str) -> Result<i64> {
        self.optional_count(name)?.ok_or_else(|| {
            Error::config(format!("the metadata has no <{name}>"))
                .at(Place { file: Some(PathBuf::from(self.file)), ..Place::default() })
        })
    }

    fn optional_count(&self, name: &str) -> Result<Option<i64>> {
        let Some((value, line)) = self.tags.get(name).filter(|(value, _)| !value.is_empty()) else {
            return Ok(None);
        };
        line.node(value, &format!("<{name}>"), LARGEST_COUNT).map(Some)
    }

    fn optional_number(&self, name: &str) -> Result<Option<f64>> {
        let Some((value, line)) = self.tags.get(name).filter(|(value, _)| !value.is_empty()) else {
            return Ok(None);
        };
        line.number(value, &format!("<{name}>")).map(Some)
    }

    /// The file does not hold what its tag announces.
    fn error(&self, name: &str, message: String) -> Error {
        let error = match self.tags.get(name) {
            Some((_, line)) => line.error(message, line.whole()),
            None => Error::config(message),
        };
        error.with_help("the file is damaged or cut off; if it is whole, correct the number it announces")
    }
}

/// The place of each field in a row, if the comment is the line that names the columns.
fn columns_named(comment: &str) -> Option<[Option<usize>; FIELDS.len()]> {
    let names: Vec<String> =
        comment.split([';', '\t', ' ']).filter(|name| !name.is_empty()).map(str::to_lowercase).collect();
    let place = |field: &str| names.iter().position(|name| name == field);
    (place("init_node").is_some() && place("term_node").is_some()).then(|| FIELDS.map(place))
}

/// What follows `word` at the start, in any case, if white space or nothing follows it.
fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (first, _) = text.split_at_checked(word.len())?;
    let rest = &text[word.len()..];
    (first.eq_ignore_ascii_case(word) && rest.chars().next().is_none_or(char::is_whitespace))
        .then_some(rest.trim_start())
}

/// The first word, and the rest.
fn split_word(text: &str) -> (&str, &str) {
    text.split_once(char::is_whitespace).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, Int64Type};

    use super::*;

    const NETWORK: &str = "<NUMBER OF ZONES> 2\t\n<NUMBER OF NODES>\t\t4\n<FIRST THRU NODE> 3\n<NUMBER OF LINKS> 3\n\
        <ORIGINAL HEADER>~ \tTail\tHead ;\n<END OF METADATA>\t\n\n\n\
        ~\tinit_node\tterm_node\tcapacity\tlength\tfree_flow_time\tb\tpower\tspeed\ttoll\tlink_type\t;\n\
        \t1\t3\t9000\t5280\t1.09\t0.15\t4\t4842\t7\t1\t;\r\n\
        ~ a comment\n\
        3 4  1 2.5 0 0.00E+00 0 0 0 1;\n\
        \t4\t2\t1\t1\t1e-8\t1000000000\t1";

    fn floats(batch: &RecordBatch, name: &str) -> Vec<f64> {
        batch[name].as_primitive::<Float64Type>().values().to_vec()
    }

    fn integers(batch: &RecordBatch, name: &str) -> Vec<i64> {
        batch[name].as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn reads_a_network_with_every_quirk() {
        let tables = read_network(NETWORK, "a_net.tntp").unwrap();
        let (links, nodes) = (&tables["links"], &tables["nodes"]);
        assert_eq!(integers(links, "link_id"), [1, 2, 3]);
        assert_eq!(integers(links, "from_node"), [1, 3, 4]);
        assert_eq!(integers(links, "to_node"), [3, 4, 2]);
        assert_eq!(floats(links, "capacity_vph"), [9000.0, 1.0, 1.0]);
        assert_eq!(floats(links, "length_m"), [5280.0, 2.5, 1.0]);
        assert_eq!(floats(links, "free_flow_time_s"), [1.09, 0.0, 1e-8]);
        assert_eq!(floats(links, "b"), [0.15, 0.0, 1e9]);
        assert_eq!(floats(links, "power"), [4.0, 0.0, 1.0]);
        assert_eq!(floats(links, "toll"), [7.0, 0.0, 0.0]);
        assert_eq!(integers(nodes, "node_id"), [1, 2, 3, 4]);
        let through: Vec<Option<bool>> = nodes["through"].as_boolean().iter().collect();
        assert_eq!(through, [Some(false), Some(false), Some(true), Some(true)]);
    }

    #[test]
    fn follows_the_order_that_the_file_names() {
        let text = "<NUMBER OF NODES> 2\n<END OF METADATA>\n\
            ~ term_node init_node length capacity free_flow_time power b ;\n2 1 10 900 3 4 0.15 ;\n";
        let links = &read_network(text, "a_net.tntp").unwrap()["links"];
        assert_eq!(integers(links, "from_node"), [1]);
        assert_eq!(floats(links, "capacity_vph"), [900.0]);
        assert_eq!(floats(links, "power"), [4.0]);
    }

    #[test]
    fn reads_trips_with_every_quirk() {
        let text = "<NUMBER OF ZONES> 3\n<TOTAL OD FLOW>  9.50\n<END OF METADATA>\n\n~ made by hand\n\
            Origin \t1 \n    1 :  0.0;     2 : 4.5; \n\norigin 2\n\nOrigin 3 1:2;\r\n 2 :\t3";
        let demand = read_trips(text, "a_trips.tntp").unwrap();
        assert_eq!(integers(&demand, "origin"), [1, 1, 3, 3]);
        assert_eq!(integers(&demand, "destination"), [1, 2, 1, 2]);
        assert_eq!(floats(&demand, "flow_vph"), [0.0, 4.5, 2.0, 3.0]);
    }

    #[test]
    fn errors_show_file_line_and_text() {
        let said = |text: &str| read_network(text, "a_net.tntp").unwrap_err().to_string();
        let shown = said(&NETWORK.replace("2.5", "2,5"));
        assert!(shown.contains("length '2,5' is not a finite number"), "{shown}");
        assert!(shown.contains("--> a_net.tntp:12:8"), "{shown}");
        assert!(shown.contains("12 | 3 4  1 2,5 0 0.00E+00 0 0 0 1;"), "{shown}");
        assert!(shown.contains("|        ^^^"), "{shown}");
        assert!(
            said(&NETWORK.replace("3 4  1", "3 5  1")).contains("term_node 5 is not a number from 1 to 4")
        );
        assert!(said(&NETWORK.replace("3 4  1", "x 4  1")).contains("init_node 'x' is not a whole number"));
        assert!(
            said(&NETWORK.replace("1e-8", "NaN")).contains("free_flow_time 'NaN' is not a finite number")
        );
        assert!(
            said(&NETWORK.replace("<NUMBER OF LINKS> 3", "<NUMBER OF LINKS> 4"))
                .contains("4 links announced, 3 found")
        );
        assert!(
            said("<NUMBER OF NODES> 2\n<END OF METADATA>\n1 2 3 ;")
                .contains("a link row of 3 fields has no length")
        );
        assert!(said("<NUMBER OF ZONES> 2\n").contains("no <NUMBER OF NODES>"));
        assert!(said("<NUMBER OF ZONES 2\n").contains("not closed"));
        assert!(said("").contains("not a TNTP file"));
        assert!(said("1;2;3\n").contains("not a TNTP file"));
        assert!(said("<NUMBER OF NODES> many").contains("'many' is not a whole number"));

        let said = |text: &str| read_trips(text, "a_trips.tntp").unwrap_err().to_string();
        assert!(said("<NUMBER OF ZONES> 2\n<END OF METADATA>\n1 : 3;").contains("before the first 'Origin'"));
        assert!(
            said("<NUMBER OF ZONES> 2\nOrigin 1\n 3 : 1;")
                .contains("destination 3 is not a number from 1 to 2")
        );
        assert!(said("<NUMBER OF ZONES> 2\nOrigin 1\n 2 1;").contains("a_trips.tntp:3:2"));
        assert!(said("<NUMBER OF ZONES> 2\nOrigin\n 2 : 1;").contains("origin '' is not a whole number"));
        assert!(said("<TOTAL OD FLOW> 10\nOrigin 1\n 2 : 1;").contains("10 announced, 1 found"));
    }

    #[test]
    fn never_panics_on_a_cut_or_mixed_up_file() {
        let text = NETWORK.replace("comment", "kommentär ☃");
        for (end, _) in text.char_indices() {
            let _ = read_network(&text[..end], "cut");
            let _ = read_trips(&text[..end], "cut");
        }
        let _ = read_trips("<NUMBER OF ZONES> 2\nörigin 1\n2:;:;;:3", "odd");
    }
}
