//! One copy serves every engine: the tables are plain Delta, read here by PyPI `deltalake`.

use std::process::Command;

use crate::demo::demo;
use crate::support::number;

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
