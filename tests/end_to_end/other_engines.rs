//! One copy serves every engine: the tables are plain Delta, read here by DuckDB, polars and PyPI `deltalake`.

use std::process::Command;

use crate::demo::demo;
use crate::support::{number, rows};

#[test]
fn deltalake_reads_the_same_rows_with_the_geometry_and_its_reference_system() {
    let python = std::env::var("TWINLAKE_PYTHON")
        .expect("TWINLAKE_PYTHON names the Python of the tests: run cargo xtask test");
    let folder = demo().0.path();
    let script = "import sys\nfrom deltalake import DeltaTable\n\
                  table = DeltaTable(sys.argv[1])\n\
                  print(sum(table.get_add_actions(flatten=True).column('num_records').to_pylist()))\n\
                  print({field.name: field.metadata for field in table.schema().fields}['geom'])\n";
    let output = Command::new(python)
        .args(["-c", script])
        .arg(folder.join("twinlake-data/traffic/vehicle_position"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    let (rows, geometry) = told.split_once('\n').unwrap();
    assert_eq!(rows.parse::<i64>().unwrap(), number(folder, "SELECT count(*) FROM traffic.vehicle_position"));
    assert!(geometry.contains("geoarrow.wkb") && geometry.contains("OGC:CRS84"), "{geometry}");
}

/// What other engines see of a table: how many rows, the least and the greatest key, how many bytes of geometry.
const READERS: &[(&str, &str)] = &[
    (
        "DuckDB",
        "import sys, pathlib, duckdb, duckdb_extension_delta\n\
         connection = duckdb.connect(config={'allow_unsigned_extensions': 'true'})\n\
         connection.execute('SET enable_progress_bar = false')\n\
         folder = pathlib.Path(duckdb_extension_delta.__file__).parent\n\
         extension = next(folder.rglob('delta.duckdb_extension*'))\n\
         connection.execute(f\"LOAD '{extension}'\")\n\
         print(*connection.execute('SELECT count(*), min(vehicle_id), max(vehicle_id), sum(octet_length(geom)) '\n\
         'FROM delta_scan(?)', [sys.argv[1]]).fetchone())",
    ),
    (
        "polars",
        "import sys, polars as pl\n\
         rows = pl.scan_delta(sys.argv[1]).select(pl.len().alias('n'), pl.col('vehicle_id').min().alias('a'), \n\
         pl.col('vehicle_id').max().alias('b'), pl.col('geom').ext.storage().bin.size().sum().alias('g')).collect()\n\
         print(*rows.row(0))",
    ),
    (
        "deltalake",
        "import sys, pyarrow.compute as pc\nfrom deltalake import DeltaTable\n\
         rows = DeltaTable(sys.argv[1]).to_pyarrow_table(columns=['vehicle_id', 'geom'])\n\
         least = pc.min_max(rows['vehicle_id']).as_py()\n\
         print(len(rows), least['min'], least['max'], pc.sum(pc.binary_length(rows['geom'])).as_py())",
    ),
];

#[test]
fn each_engine_counts_the_same_rows_and_the_same_bytes_of_geometry() {
    let python = std::env::var("TWINLAKE_PYTHON")
        .expect("TWINLAKE_PYTHON names the Python of the tests: run cargo xtask test");
    let folder = demo().0.path();
    let own = rows(
        folder,
        "SELECT count(*) AS n, min(vehicle_id) AS a, max(vehicle_id) AS b, sum(length(encode(geom, 'hex'))) / 2 AS g \
         FROM traffic.vehicle_position",
    );
    let shown = |key: &str| match &own[0][key] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let own = ["n", "a", "b", "g"].map(shown).join(" ");
    for (engine, script) in READERS {
        let mut command = Command::new(&python);
        // Without the interpreter's own end, at which libraries have been seen to abort over threads of theirs.
        let script = format!("{script}\nimport os\nsys.stdout.flush()\nos._exit(0)");
        command.args(["-c", &script]).arg(folder.join("twinlake-data/traffic/vehicle_position"));
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{engine}: {told}\n{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(told.trim(), own, "{engine}");
    }
}
