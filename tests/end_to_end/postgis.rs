//! The same SQL on the same geometries here and in PostGIS: equal answers, up to the tolerance that each expression names.
//!
//! Geometries are random ones of every type (on a small grid, so that they touch, share edges and nest), empty ones, and
//! the footprints of real buildings.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{Numbers, free_port, repository, succeed, wait_until};

/// How values are compared: as text, or as numbers with a relative tolerance.
#[derive(Clone, Copy)]
enum Equal {
    Text,
    Near(f64),
}

use Equal::{Near, Text};

/// Of one geometry `g`.
const OF_ONE: &[(&str, Equal)] = &[
    ("st_area(g)", Near(1e-9)),
    ("st_length(g)", Near(1e-9)),
    ("st_npoints(g)", Text),
    ("st_isempty(g)", Text),
    ("st_x(st_centroid(g))", Near(1e-9)),
    ("st_y(st_centroid(g))", Near(1e-9)),
    ("st_xmin(g)", Near(1e-12)),
    ("st_ymax(g)", Near(1e-12)),
    ("st_geometrytype(g)", Text),
    ("st_astext(g)", Text),
    ("st_area(st_envelope(g))", Near(1e-9)),
    ("st_geometrytype(st_envelope(g))", Text),
    ("st_perimeter(g)", Near(1e-9)),
    ("st_isvalid(g)", Text),
    ("st_issimple(g)", Text),
    ("st_isclosed(g)", Text),
    ("st_numgeometries(g)", Text),
    ("st_dimension(g)", Text),
    ("st_area(st_convexhull(g))", Near(1e-9)),
    // Eight segments a quarter leave out at most 0.64 % of a disc, turned as each likes.
    ("st_area(st_buffer(g, 1.0))", Near(7e-3)),
    ("st_astext(st_reverse(g))", Text),
    ("st_astext(st_flipcoordinates(g))", Text),
    ("st_isvalid(st_makevalid(g))", Text),
    ("CASE WHEN st_isvalid(g) THEN st_area(st_makevalid(g)) END", Near(1e-9)),
    ("st_astext(st_translate(g, 2, 3))", Text),
    // Where nothing is left of an area PostGIS gives null; here it is an empty geometry.
    (
        "CASE WHEN st_dimension(g) = 1 AND NOT st_isempty(g) THEN st_length(st_simplify(g, 0.3)) END",
        Near(1e-9),
    ),
    ("st_npoints(st_segmentize(g, 0.7))", Text),
    ("st_area(st_expand(g, 1.5))", Near(1e-9)),
    ("encode(st_asewkb(st_setsrid(g, 3879)), 'hex')", Text),
];

/// Of one geometry that is no collection, which PostGIS refuses here.
const OF_ONE_PLAIN: &[(&str, Equal)] =
    &[("st_length(st_boundary(g))", Near(1e-9)), ("st_within(st_pointonsurface(g), g)", Text)];

/// Of two geometries `a` and `b`.
const OF_TWO: &[(&str, Equal)] = &[
    ("st_disjoint(a, b)", Text),
    ("st_contains(a, b)", Text),
    ("st_within(a, b)", Text),
    ("st_covers(a, b)", Text),
    ("st_coveredby(a, b)", Text),
    ("st_distance(a, b)", Near(1e-9)),
    ("st_dwithin(a, b, 2.0)", Text),
];

/// Of two geometries that are no collections.
const OF_TWO_PLAIN: &[(&str, Equal)] = &[
    // PostGIS 3.3 denies that GEOMETRYCOLLECTION(POINT(18 17), …) meets LINESTRING(17 16,20 19), and that they are disjoint.
    ("st_intersects(a, b)", Text),
    ("st_touches(a, b)", Text),
    ("st_crosses(a, b)", Text),
    ("st_overlaps(a, b)", Text),
    ("st_equals(a, b)", Text),
    ("st_relate(a, b)", Text),
    // PostGIS gives null for some of many parts.
    (
        "CASE WHEN st_numgeometries(a) = 1 AND st_numgeometries(b) = 1 THEN st_maxdistance(a, b) END",
        Near(1e-9),
    ),
    ("st_hausdorffdistance(a, b)", Near(1e-9)),
    ("st_distance(st_closestpoint(a, b), b)", Near(1e-9)),
    ("st_length(st_shortestline(a, b))", Near(1e-9)),
    ("st_area(st_intersection(a, b))", Near(1e-9)),
    ("st_length(st_intersection(a, b))", Near(1e-9)),
    ("st_area(st_union(a, b))", Near(1e-9)),
    ("st_area(st_difference(a, b))", Near(1e-9)),
    ("st_length(st_difference(a, b))", Near(1e-9)),
    ("st_area(st_symdifference(a, b))", Near(1e-9)),
];

/// A PostgreSQL server of its own with PostGIS; ended when dropped.
struct Postgis {
    child: Child,
    data: PathBuf,
    port: u16,
}

/// The folder of the newest server's programs: Debian keeps them out of the path.
fn programs() -> PathBuf {
    let mut folders: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect())
        .unwrap_or_default();
    folders.sort();
    folders.retain(|folder| folder.join("initdb").is_file());
    folders.pop().expect("PostgreSQL is not installed; cargo xtask test installs it")
}

/// The server refuses to run as root: the package's user runs it then.
fn as_server(program: &Path) -> Command {
    let id = Command::new("id").arg("-u").output().unwrap().stdout;
    if String::from_utf8_lossy(&id).trim() != "0" {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program);
    command
}

impl Postgis {
    fn start(folder: &Path) -> Self {
        let data = folder.join("postgres");
        fs::create_dir(&data).unwrap();
        for (path, mode) in [(folder, "711"), (data.as_path(), "777")] {
            assert!(Command::new("chmod").arg(mode).arg(path).status().unwrap().success());
        }
        let data = data.join("data");
        let initialised = as_server(&programs().join("initdb"))
            .args(["--auth", "trust", "--username", "test", "--encoding", "UTF8", "--pgdata"])
            .arg(&data)
            .stdout(Stdio::null())
            .status();
        assert!(initialised.unwrap().success(), "initdb");
        let port = free_port();
        let child = as_server(&programs().join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k", "", "-F"])
            .stderr(fs::File::create(folder.join("postgres.log")).unwrap())
            .spawn()
            .unwrap();
        let server = Self { child, data, port };
        wait_until("PostgreSQL", || server.psql("SELECT 1", None).is_ok());
        server.psql("CREATE EXTENSION postgis", None).unwrap();
        server
    }

    fn psql(&self, sql: &str, input: Option<&Path>) -> Result<String, String> {
        let mut command = Command::new("psql");
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        command.args(["-U", "test", "postgres", "-c", sql]);
        command.stdin(input.map_or_else(Stdio::null, |path| fs::File::open(path).unwrap().into()));
        let output = command.output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// The rows of a query as CSV.
    fn csv(&self, sql: &str) -> String {
        let copy = format!("COPY ({sql}) TO STDOUT (FORMAT csv)");
        self.psql(&copy, None).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }
}

impl Drop for Postgis {
    fn drop(&mut self) {
        // `runuser` stands between; the server's own process is the first line of its file.
        let process = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        if let Some(process) = process.lines().next() {
            let _ = Command::new("kill").args(["-INT", process]).status();
        }
        let _ = self.child.wait();
    }
}

/// A random geometry as text; `kind` chooses the type.
fn geometry(chance: &mut Numbers, kind: u64) -> String {
    let at = |chance: &mut Numbers| (chance.below(20) as i64, chance.below(20) as i64);
    let line = |chance: &mut Numbers| {
        let mut text = String::from("(");
        let (mut x, mut y) = at(chance);
        let _ = write!(text, "{x} {y}");
        for _ in 0..=chance.below(3) {
            x += 1 + chance.below(4) as i64;
            y += chance.below(7) as i64 - 3;
            let _ = write!(text, ",{x} {y}");
        }
        text + ")"
    };
    // A rectangle, a triangle, or a rectangle with a hole: valid always.
    let polygon = |chance: &mut Numbers, x: i64, y: i64| {
        let (width, height) = (1 + chance.below(6) as i64, 1 + chance.below(6) as i64);
        let (x1, y1) = (x + width, y + height);
        match chance.below(3) {
            0 => format!("(({x} {y},{x1} {y},{x} {y1},{x} {y}))"),
            1 if width > 2 && height > 2 => {
                let (a, b) = (x + 1, y + 1);
                let (c, d) = (a + 1, b + 1);
                format!(
                    "(({x} {y},{x1} {y},{x1} {y1},{x} {y1},{x} {y}),({a} {b},{a} {d},{c} {d},{c} {b},{a} {b}))"
                )
            }
            _ => format!("(({x} {y},{x1} {y},{x1} {y1},{x} {y1},{x} {y}))"),
        }
    };
    let (x, y) = at(chance);
    match kind {
        0 => format!("POINT({x} {y})"),
        1 => format!("LINESTRING{}", line(chance)),
        2 => format!("POLYGON{}", polygon(chance, x, y)),
        3 => {
            let (u, v) = at(chance);
            format!("MULTIPOINT(({x} {y}),({} {}))", u + 20, v)
        }
        4 => format!("MULTILINESTRING({},{})", line(chance), line(chance)),
        5 => format!("MULTIPOLYGON({},{})", polygon(chance, x, y), polygon(chance, x + 7, y)),
        6 => format!("GEOMETRYCOLLECTION(POINT({x} {y}),LINESTRING{})", line(chance)),
        7 => "POLYGON EMPTY".to_owned(),
        _ => "POINT EMPTY".to_owned(),
    }
}

/// Buildings of the demo's map, as text.
fn buildings(folder: &Path) -> Vec<String> {
    let map = repository().join("pipelines/helsinki-map.toml");
    succeed(folder, &["run", "--once", "--no-progress", map.to_str().unwrap()]);
    let sql = "SELECT st_astext(geom) AS wkt FROM map.building ORDER BY st_astext(geom) LIMIT 150";
    let text = succeed(folder, &["sql", "--format", "json", "-c", sql]);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    rows.iter().map(|row| row["wkt"].as_str().unwrap().to_owned()).collect()
}

fn same(equal: Equal, ours: &str, theirs: &str) -> bool {
    match equal {
        Text => {
            let plain = |text: &str| match text {
                "t" => "true".to_owned(),
                "f" => "false".to_owned(),
                other => other.to_owned(),
            };
            plain(ours) == plain(theirs)
        }
        Near(tolerance) => match (ours.parse::<f64>(), theirs.parse::<f64>()) {
            (Ok(a), Ok(b)) => (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0),
            _ => ours == theirs,
        },
    }
}

/// The fields of a line of CSV.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    for letter in line.chars() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => fields.last_mut().unwrap().push(letter),
        }
    }
    fields
}

/// Asks both and compares; gives how many values were compared and what differs.
fn compare(
    folder: &Path,
    server: &Postgis,
    expressions: &[(&str, Equal)],
    from: &str,
    label: &str,
) -> (usize, Vec<String>) {
    let columns: Vec<String> =
        expressions.iter().enumerate().map(|(number, (text, _))| format!("{text} AS c{number}")).collect();
    let sql = |table: &str| {
        format!("SELECT {label}, {} FROM {} ORDER BY 1", columns.join(", "), from.replace("TABLE", table))
    };
    let here = "(SELECT id, st_geomfromtext(wkt) AS g FROM 'shapes.csv')";
    let ours = succeed(folder, &["sql", "--format", "csv", "-c", &sql(here)]);
    let theirs = server.csv(&sql("shapes"));
    let (ours, theirs): (Vec<&str>, Vec<&str>) = (ours.lines().skip(1).collect(), theirs.lines().collect());
    assert_eq!(ours.len(), theirs.len());
    let mut different = Vec::new();
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let (ours, theirs) = (fields(ours), fields(theirs));
        assert_eq!((&ours[0], ours.len()), (&theirs[0], theirs.len()), "{ours:?} {theirs:?}");
        for (number, (text, equal)) in expressions.iter().enumerate() {
            let (ours_value, theirs_value) = (&ours[number + 1], &theirs[number + 1]);
            if !same(*equal, ours_value, theirs_value) {
                different.push(format!("{} {text}: {ours_value}, PostGIS {theirs_value}", ours[0]));
            }
        }
    }
    (ours.len() * expressions.len(), different)
}

#[test]
fn geometry_functions_answer_as_postgis_does() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut chance = Numbers(1);
    let mut shapes: Vec<String> = (0..360).map(|number| geometry(&mut chance, number % 9)).collect();
    shapes.extend(buildings(folder));
    let mut csv = String::from("id,wkt\n");
    for (number, shape) in shapes.iter().enumerate() {
        let _ = writeln!(csv, "{number},\"{shape}\"");
    }
    fs::write(folder.join("shapes.csv"), &csv).unwrap();
    let server = Postgis::start(folder);
    server.psql("CREATE TABLE shapes (id int PRIMARY KEY, g geometry)", None).unwrap();
    server.psql("COPY shapes FROM STDIN (FORMAT csv, HEADER)", Some(&folder.join("shapes.csv"))).unwrap();

    let (one, mut different) = compare(folder, &server, OF_ONE, "TABLE AS t", "id");
    let pairs = "(SELECT l.id * 1000 + r.id AS pair, l.g AS a, r.g AS b FROM TABLE AS l, TABLE AS r \
                 WHERE (l.id < 360 AND r.id > l.id AND r.id < l.id + 12) OR (l.id >= 360 AND abs(r.id - l.id) <= 2)) AS p";
    let (two, more) = compare(folder, &server, OF_TWO, pairs, "pair");
    different.extend(more);
    let plain = "TABLE AS t WHERE st_geometrytype(g) <> 'ST_GeometryCollection'";
    different.extend(compare(folder, &server, OF_ONE_PLAIN, plain, "id").1);
    let plain = format!(
        "{pairs} WHERE st_geometrytype(a) <> 'ST_GeometryCollection' AND st_geometrytype(b) <> 'ST_GeometryCollection'"
    );
    let (two_plain, more) = compare(folder, &server, OF_TWO_PLAIN, &plain, "pair");
    different.extend(more);
    let two = two + two_plain;
    println!("{one} values of one geometry and {two} of two compared, {} differ", different.len());
    assert!(one > 10_000 && two > 60_000, "{one} {two}");
    // For each expression how many differ, and the first with its geometries.
    let mut by_expression: BTreeMap<&str, (usize, &str, Vec<&str>)> = BTreeMap::new();
    for line in &different {
        let (label, rest) = line.split_once(' ').unwrap();
        let label: usize = label.parse().unwrap();
        let ids = if label < 1000 { vec![label] } else { vec![label / 1000, label % 1000] };
        let text = rest.split_once(": ").map_or("", |(text, _)| text);
        let wkt = ids.iter().map(|id| shapes[*id].as_str()).collect();
        by_expression.entry(text).or_insert((0, line, wkt)).0 += 1;
    }
    assert!(different.is_empty(), "{} differ:\n{by_expression:#?}", different.len());
}
