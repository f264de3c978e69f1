//! H3 cells: their relatives, neighbours, lines and areas (Uber 2018; computed by `h3o`).

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, Int64Builder, ListBuilder,
};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::Result;
use geo::{Distance, Geometry, Haversine};
use h3o::geom::{ContainmentMode, PlotterBuilder, TilerBuilder};
use h3o::{CellIndex, LatLng};

use super::cell::{cell, resolution, to_integer};
use super::degrees::check_degrees;
use super::shaping::singles;
use crate::call::Call;
use crate::definition::{BOOLEAN, Definition, FLOAT64, INT64, Kind, Output, Parameter, list_of};

const CELL: &[&[Parameter]] = &[&[("cell", Kind::Integer)]];
const TWO: &[&[Parameter]] = &[&[("a", Kind::Integer), ("b", Kind::Integer)]];
const AT: &[&[Parameter]] = &[&[("cell", Kind::Integer), ("resolution", Kind::Integer)]];
const CELLS: Output = Output::Value(|| list_of(DataType::Int64));

/// More cells than this in one list are refused.
const MOST: u64 = 10_000_000;

pub(crate) static RESOLUTION: Definition =
    Definition::new("h3_get_resolution", "The resolution of the cell, 0 to 15", CELL, INT64, |call| {
        let cells = call.integers(0)?;
        call.rows::<Int64Array, _>(|row| {
            cells.get(row).map(|number| Ok(i64::from(u8::from(cell(call, number)?.resolution())))).transpose()
        })
    });

pub(crate) static IS_VALID: Definition = Definition::new(
    "h3_is_valid_cell",
    "Whether an integer or a text of hexadecimal digits is an H3 cell",
    &[&[("cell", Kind::TextOrInteger)]],
    BOOLEAN,
    |call| {
        // An integer comes as its decimal digits: sixteen hexadecimal ones or fewer never are as long as those of a cell.
        let texts = call.texts(0)?;
        call.rows::<BooleanArray, _>(|row| {
            Ok(texts.get(row).map(|text| {
                let decimal = text.parse::<u64>().ok().is_some_and(|bits| CellIndex::try_from(bits).is_ok());
                decimal || text.parse::<CellIndex>().is_ok()
            }))
        })
    },
);

pub(crate) static IS_PENTAGON: Definition = Definition::new(
    "h3_is_pentagon",
    "Whether the cell is one of the twelve pentagons of its resolution",
    CELL,
    BOOLEAN,
    |call| {
        let cells = call.integers(0)?;
        call.rows::<BooleanArray, _>(|row| {
            cells.get(row).map(|number| Ok(cell(call, number)?.is_pentagon())).transpose()
        })
    },
);

pub(crate) static AREA: Definition = Definition::new(
    "h3_cell_area",
    "The area of the cell on the sphere in 'm^2', or in 'km^2' or 'rads^2'",
    &[&[("cell", Kind::Integer)], &[("cell", Kind::Integer), ("unit", Kind::Text)]],
    FLOAT64,
    |call| {
        let cells = call.integers(0)?;
        let units = if call.arity() > 1 { Some(call.texts(1)?) } else { None };
        call.rows::<Float64Array, _>(|row| {
            let Some(number) = cells.get(row) else { return Ok(None) };
            let cell = cell(call, number)?;
            let unit = match &units {
                None => "m^2",
                Some(units) => match units.get(row) {
                    Some(unit) => unit,
                    None => return Ok(None),
                },
            };
            match unit {
                "m^2" | "m2" => Ok(Some(cell.area_m2())),
                "km^2" | "km2" => Ok(Some(cell.area_km2())),
                "rads^2" | "rads2" => Ok(Some(cell.area_rads2())),
                other => call.error(format!("'{other}' is not 'm^2', 'km^2' or 'rads^2'")),
            }
        })
    },
);

pub(crate) static CENTER_CHILD: Definition = Definition::new(
    "h3_cell_to_center_child",
    "The cell in the middle of the cell at a finer resolution",
    AT,
    INT64,
    |call| {
        let (cells, resolutions) = (call.integers(0)?, call.integers(1)?);
        call.rows::<Int64Array, _>(|row| {
            let (Some(number), Some(level)) = (cells.get(row), resolutions.get(row)) else { return Ok(None) };
            match cell(call, number)?.center_child(resolution(call, level)?) {
                Some(child) => Ok(Some(to_integer(child))),
                None => call.error(format!("the resolution {level} is coarser than that of the cell")),
            }
        })
    },
);

pub(crate) static CHILDREN: Definition = Definition::new(
    "h3_cell_to_children",
    "The cells of a finer resolution that the cell is divided into, in ascending order, as a list",
    AT,
    CELLS,
    |call| {
        let (cells, resolutions) = (call.integers(0)?, call.integers(1)?);
        lists(call, |row| {
            let (Some(number), Some(level)) = (cells.get(row), resolutions.get(row)) else { return Ok(None) };
            let (parent, level) = (cell(call, number)?, resolution(call, level)?);
            check_count(call, parent.children_count(level))?;
            Ok(Some(parent.children(level).collect()))
        })
    },
);

pub(crate) static RING: Definition = Definition::new(
    "h3_grid_ring",
    "The cells exactly k steps from the cell, in ascending order, as a list",
    &[&[("cell", Kind::Integer), ("k", Kind::Integer)]],
    CELLS,
    |call| {
        let (cells, steps) = (call.integers(0)?, call.integers(1)?);
        lists(call, |row| {
            let (Some(number), Some(k)) = (cells.get(row), steps.get(row)) else { return Ok(None) };
            let centre = cell(call, number)?;
            let Some(k) = u32::try_from(k).ok().filter(|k| *k <= 100_000) else {
                return call.error(format!("{k} is not a number of steps in 0..=100000"));
            };
            let mut ring: Vec<CellIndex> = centre.grid_ring(k);
            ring.sort_unstable();
            Ok(Some(ring))
        })
    },
);

pub(crate) static DISTANCE: Definition = Definition::new(
    "h3_grid_distance",
    "How many steps of the grid lie between two cells of one resolution; null when they are too far apart or a pentagon distorts the grid between them",
    TWO,
    INT64,
    |call| {
        let (left, right) = (call.integers(0)?, call.integers(1)?);
        call.rows::<Int64Array, _>(|row| {
            let (Some(a), Some(b)) = (left.get(row), right.get(row)) else { return Ok(None) };
            let (a, b) = (cell(call, a)?, cell(call, b)?);
            same_resolution(call, a, b)?;
            Ok(a.grid_distance(b).ok().map(i64::from))
        })
    },
);

pub(crate) static PATH: Definition = Definition::new(
    "h3_grid_path_cells",
    "The cells on a line from one cell to another, both included, as a list; null when they are too far apart or a pentagon distorts the grid between them",
    TWO,
    CELLS,
    |call| {
        let (left, right) = (call.integers(0)?, call.integers(1)?);
        lists(call, |row| {
            let (Some(a), Some(b)) = (left.get(row), right.get(row)) else { return Ok(None) };
            let (a, b) = (cell(call, a)?, cell(call, b)?);
            same_resolution(call, a, b)?;
            Ok(a.grid_path_cells(b)
                .ok()
                .and_then(|path| path.collect::<std::result::Result<Vec<_>, _>>().ok()))
        })
    },
);

pub(crate) static ARE_NEIGHBOURS: Definition = Definition::new(
    "h3_are_neighbor_cells",
    "Whether two cells of one resolution share an edge",
    TWO,
    BOOLEAN,
    |call| {
        let (left, right) = (call.integers(0)?, call.integers(1)?);
        call.rows::<BooleanArray, _>(|row| {
            let (Some(a), Some(b)) = (left.get(row), right.get(row)) else { return Ok(None) };
            let (a, b) = (cell(call, a)?, cell(call, b)?);
            same_resolution(call, a, b)?;
            Ok(Some(a.is_neighbor_with(b).unwrap_or(false)))
        })
    },
);

fn same_resolution(call: &Call<'_>, a: CellIndex, b: CellIndex) -> Result<()> {
    if a.resolution() == b.resolution() {
        return Ok(());
    }
    call.error(format!("the cells have resolutions {} and {}", a.resolution(), b.resolution()))
}

pub(crate) static COMPACT: Definition = Definition::new(
    "h3_compact_cells",
    "The same area in as few cells as possible: children that fill a parent become the parent; all cells must be of one resolution",
    &[&[("cells", Kind::Integers)]],
    CELLS,
    |call| {
        let column = call.lists(0)?;
        lists(call, |row| {
            let Some(items) = column.get(row) else { return Ok(None) };
            let mut cells = cells_of(call, &items)?;
            cells.sort_unstable();
            cells.dedup();
            match CellIndex::compact(&mut cells) {
                Ok(()) => Ok(Some(cells)),
                Err(error) => call.error(error),
            }
        })
    },
);

pub(crate) static UNCOMPACT: Definition = Definition::new(
    "h3_uncompact_cells",
    "The same area in cells of one resolution",
    &[&[("cells", Kind::Integers), ("resolution", Kind::Integer)]],
    CELLS,
    |call| {
        let (column, resolutions) = (call.lists(0)?, call.integers(1)?);
        lists(call, |row| {
            let (Some(items), Some(level)) = (column.get(row), resolutions.get(row)) else { return Ok(None) };
            let (cells, level) = (cells_of(call, &items)?, resolution(call, level)?);
            if let Some(finer) = cells.iter().find(|cell| cell.resolution() > level) {
                return call.error(format!("the cell {finer} is finer than the resolution {level}"));
            }
            check_count(call, cells.iter().map(|cell| cell.children_count(level)).sum())?;
            let mut cells: Vec<CellIndex> = cells.into_iter().flat_map(|cell| cell.children(level)).collect();
            cells.sort_unstable();
            cells.dedup();
            Ok(Some(cells))
        })
    },
);

pub(crate) static POLYGON_TO_CELLS: Definition = Definition {
    name: "h3_polygon_to_cells",
    aliases: &["h3_geometry_to_cells"],
    summary: "The cells of a resolution for a geometry in longitude and latitude, in ascending order, as a list: those with their centre in an area, those along a line, those of points; with a mode 'center', 'full' (cells inside of the area), 'overlap' (cells that meet it) or 'cover' (overlap, and at least one cell)",
    overloads: &[
        &[("geometry", Kind::Geometry), ("resolution", Kind::Integer)],
        &[("geometry", Kind::Geometry), ("resolution", Kind::Integer), ("mode", Kind::Text)],
    ],
    crs: crate::definition::CrsRule::LonLat,
    output: CELLS,
    body: |call| {
        let (geometries, resolutions) = (call.geometries(0)?, call.integers(1)?);
        let modes = if call.arity() > 2 { Some(call.texts(2)?) } else { None };
        lists(call, |row| {
            let (Some(geometry), Some(level)) = (geometries.get(row)?, resolutions.get(row)) else {
                return Ok(None);
            };
            let mode = match &modes {
                None => ContainmentMode::ContainsCentroid,
                Some(modes) => match modes.get(row) {
                    None => return Ok(None),
                    Some("center") => ContainmentMode::ContainsCentroid,
                    Some("full") => ContainmentMode::ContainsBoundary,
                    Some("overlap") => ContainmentMode::IntersectsBoundary,
                    Some("cover") => ContainmentMode::Covers,
                    Some(other) => {
                        return call
                            .error(format!("'{other}' is not 'center', 'full', 'overlap' or 'cover'"));
                    }
                },
            };
            check_degrees(call, &geometry)?;
            fill(call, &geometry, resolution(call, level)?, mode).map(Some)
        })
    },
};

fn fill(
    call: &Call<'_>,
    geometry: &Geometry,
    level: h3o::Resolution,
    mode: ContainmentMode,
) -> Result<Vec<CellIndex>> {
    // The outline alone takes a cell an edge length or so.
    let outline_m: f64 = crate::metric::segments(geometry)
        .iter()
        .map(|line| Haversine.distance(line.start.into(), line.end.into()))
        .sum();
    check_count(call, (outline_m / level.edge_length_m()) as u64)?;
    let mut cells: Vec<CellIndex> = Vec::new();
    for part in singles(geometry) {
        match part {
            Geometry::Point(point) => match LatLng::new(point.y(), point.x()) {
                Ok(place) => cells.push(place.to_cell(level)),
                Err(error) => return call.error(error),
            },
            Geometry::LineString(line) if !line.0.is_empty() => {
                let mut plotter = PlotterBuilder::new(level).build();
                for segment in line.lines() {
                    if let Err(error) = plotter.add(segment) {
                        return call.error(error);
                    }
                }
                for cell in plotter.plot() {
                    match cell {
                        Ok(cell) => cells.push(cell),
                        Err(error) => return call.error(error),
                    }
                }
            }
            Geometry::Polygon(polygon) if !polygon.exterior().0.is_empty() => {
                let mut tiler = TilerBuilder::new(level).containment_mode(mode).build();
                if let Err(error) = tiler.add(polygon) {
                    return call.error(error);
                }
                check_count(call, tiler.coverage_size_hint() as u64)?;
                cells.extend(tiler.into_coverage());
            }
            _ => {}
        }
    }
    cells.sort_unstable();
    cells.dedup();
    Ok(cells)
}

fn check_count(call: &Call<'_>, count: u64) -> Result<()> {
    if count <= MOST {
        Ok(())
    } else {
        call.error(format!("{count} cells are more than the {MOST} of one list"))
    }
}

fn cells_of(call: &Call<'_>, items: &ArrayRef) -> Result<Vec<CellIndex>> {
    let numbers = items.as_primitive::<Int64Type>();
    (0..numbers.len()).filter(|i| numbers.is_valid(*i)).map(|i| cell(call, numbers.value(i))).collect()
}

fn lists(
    call: &Call<'_>,
    mut compute: impl FnMut(usize) -> Result<Option<Vec<CellIndex>>>,
) -> Result<ArrayRef> {
    let mut lists = ListBuilder::new(Int64Builder::new());
    for row in 0..call.rows {
        match compute(row)? {
            Some(cells) => {
                for cell in cells {
                    lists.values().append_value(to_integer(cell));
                }
                lists.append(true);
            }
            None => lists.append(false),
        }
    }
    Ok(Arc::new(lists.finish()))
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    const CELL: &str = "h3_from_string('85283473fffffff')";

    #[test]
    fn knows_relatives_and_neighbours() {
        check(&[
            // The examples of the H3 documentation.
            (&format!("h3_get_resolution({CELL})"), "5"),
            (&format!("round(h3_cell_area({CELL}, 'km^2'), 6)"), "265.092558"),
            (&format!("cardinality(h3_cell_to_children({CELL}, 7))"), "49"),
            (&format!("h3_cell_to_parent(h3_cell_to_center_child({CELL}, 8), 5) = {CELL}"), "true"),
            (&format!("cardinality(h3_grid_ring({CELL}, 3))"), "18"),
            (&format!("h3_grid_distance({CELL}, h3_grid_ring({CELL}, 3)[1])"), "3"),
            (&format!("cardinality(h3_grid_path_cells({CELL}, h3_grid_ring({CELL}, 3)[1]))"), "4"),
            (&format!("h3_are_neighbor_cells({CELL}, h3_grid_ring({CELL}, 1)[1])"), "true"),
            (&format!("h3_compact_cells(h3_cell_to_children({CELL}, 7)) = make_array({CELL})"), "true"),
            (&format!("h3_uncompact_cells(make_array({CELL}), 7) = h3_cell_to_children({CELL}, 7)"), "true"),
            (
                "h3_is_valid_cell('85283473fffffff'), h3_is_valid_cell('x'), h3_is_valid_cell(7)",
                "true|false|false",
            ),
            (&format!("h3_is_valid_cell({CELL}), h3_is_pentagon({CELL})"), "true|false"),
            ("h3_cell_to_children(NULL, 7)", "NULL"),
        ]);
        fails(&format!("h3_cell_to_children({CELL}, 15)"), "cells are more than");
        fails(&format!("h3_grid_distance({CELL}, h3_cell_to_parent({CELL}, 4))"), "have resolutions 5 and 4");
    }

    #[test]
    fn fills_areas_lines_and_points() {
        check(&[
            (
                "cardinality(h3_polygon_to_cells(h3_cell_to_boundary(h3_from_string('85283473fffffff')), 7))",
                "49",
            ),
            ("cardinality(h3_polygon_to_cells(st_point(24.94, 60.17), 9))", "1"),
            ("cardinality(h3_polygon_to_cells(st_makeenvelope(24.9, 60.1, 24.9001, 60.1001), 5))", "0"),
            (
                "cardinality(h3_polygon_to_cells(st_makeenvelope(24.9, 60.1, 24.9001, 60.1001), 5, 'cover'))",
                "1",
            ),
            (
                "cardinality(h3_polygon_to_cells(st_geomfromtext('LINESTRING(24.9 60.1,25 60.1)'), 7)) > 2",
                "true",
            ),
            ("cardinality(h3_polygon_to_cells(st_geomfromtext('POLYGON EMPTY'), 5))", "0"),
            // Over the antimeridian: the area of two degrees, not of 358.
            (
                "cardinality(h3_polygon_to_cells(st_geomfromtext('POLYGON((179 0,-179 0,-179 1,179 1,179 0))'), 3)) < 10",
                "true",
            ),
        ]);
        fails(
            "h3_polygon_to_cells(st_setcrs(st_point(1, 2), 'EPSG:3879'), 5)",
            "takes longitude and latitude",
        );
    }
}
