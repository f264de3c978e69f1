//! Reading of OpenStreetMap PBF files, strictly: a damaged file is an error that names the file and the byte, never a
//! panic and never a part of the data without a word.
//!
//! The crate osmpbf decodes blocks; what it is lenient about is checked here: text indices out of range, bytes after
//! the last blob, required features, a missing header, and its own panics on numbers that no sound file has.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use osmpbf::{BlobDecode, BlobReader, PrimitiveBlock, RelMemberType};
use twinlake_contracts::{Error, Result};

/// Tags of one element that are wanted, by key.
pub(crate) type Tags = HashMap<String, String>;

/// A way: its nodes in order, and its tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) id: i64,
    pub(crate) nodes: Vec<i64>,
    pub(crate) tags: Tags,
}

/// A relation: its way members with their roles, and its tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(crate) id: i64,
    pub(crate) ways: Vec<(i64, String)>,
    pub(crate) tags: Tags,
}

/// A node with its tags.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) id: i64,
    pub(crate) position: Position,
    pub(crate) tags: Tags,
}

/// A relation as the nodes that it names, in order, and its tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) id: i64,
    pub(crate) nodes: Vec<i64>,
    pub(crate) tags: Tags,
}

/// A position in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Position {
    pub(crate) longitude: f64,
    pub(crate) latitude: f64,
}

/// A PBF file.
pub(crate) struct OsmFile {
    path: PathBuf,
}

/// Counts what is read.
struct Counting<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Features that this reader knows how to read.
const FEATURES: [&str; 3] = ["OsmSchema-V0.6", "DenseNodes", "LocationsOnWays"];

impl OsmFile {
    pub(crate) fn new(path: &Path) -> Result<Self> {
        if !path.is_file() {
            return Err(Error::config(format!("there is no file '{}'", path.display())).with_help(
                "an OpenStreetMap extract in PBF is expected, for example from download.geofabrik.de",
            ));
        }
        Ok(Self { path: path.to_owned() })
    }

    fn damaged(&self, offset: u64, why: impl std::fmt::Display) -> Error {
        Error::permanent(
            format!("OpenStreetMap file '{}'", self.path.display()),
            format!("the block at byte {offset} cannot be read: {why}"),
        )
    }

    /// Calls `take` with each data block, in the file's order.
    fn blocks(&self, take: &mut dyn FnMut(&PrimitiveBlock) -> Result<(), String>) -> Result<()> {
        let file = File::open(&self.path)
            .map_err(|error| Error::permanent(format!("file '{}'", self.path.display()), error))?;
        let count = Arc::new(AtomicU64::new(0));
        let reader = Counting { inner: BufReader::with_capacity(1 << 20, file), count: Arc::clone(&count) };
        let mut blobs = BlobReader::new(reader);
        let mut header_seen = false;
        loop {
            let offset = count.load(Ordering::Relaxed);
            let Some(blob) = blobs.next() else {
                let end = count.load(Ordering::Relaxed);
                if end != offset {
                    return Err(self.damaged(offset, "the file ends inside the length of a block"));
                }
                if !header_seen {
                    return Err(self.damaged(0, "the file is empty"));
                }
                return Ok(());
            };
            let blob = blob.map_err(|error| self.damaged(offset, error))?;
            // osmpbf adds up differences without a check; a damaged block may run over.
            let outcome = catch_unwind(AssertUnwindSafe(|| match blob.decode() {
                Err(error) => Err(error.to_string()),
                Ok(BlobDecode::OsmHeader(header)) => {
                    let unknown =
                        header.required_features().iter().find(|name| !FEATURES.contains(&name.as_str()));
                    header_seen = true;
                    unknown.map_or(Ok(()), |name| {
                        Err(format!("the file needs the feature '{name}', which is not supported"))
                    })
                }
                Ok(BlobDecode::OsmData(_)) if !header_seen => Err("there is no header before it".to_owned()),
                Ok(BlobDecode::OsmData(block)) => take(&block),
                Ok(BlobDecode::Unknown(_)) => Ok(()),
            }));
            outcome
                .unwrap_or_else(|_| Err("its numbers are out of range".to_owned()))
                .map_err(|why| self.damaged(offset, why))?;
        }
    }

    /// All ways and relations for which the filters say yes, each sorted by identifier.
    pub(crate) fn ways_and_relations(
        &self,
        way_wanted: &dyn Fn(&Tags) -> bool,
        relation_wanted: &dyn Fn(&Tags) -> bool,
    ) -> Result<(Vec<Way>, Vec<Relation>)> {
        let (mut ways, mut relations) = (Vec::new(), Vec::new());
        self.blocks(&mut |block| {
            let texts = block.raw_stringtable();
            for group in block.groups() {
                for way in group.ways() {
                    let tags = tags(texts, way.raw_tags())?;
                    if way_wanted(&tags) {
                        ways.push(Way { id: way.id(), nodes: way.refs().collect(), tags });
                    }
                }
                for relation in group.relations() {
                    let tags = tags(texts, relation.raw_tags())?;
                    if relation_wanted(&tags) {
                        let mut members = Vec::new();
                        for member in relation.members() {
                            if member.member_type == RelMemberType::Way {
                                let role = member.role().map_err(|error| error.to_string())?;
                                members.push((member.member_id, role.to_owned()));
                            }
                        }
                        relations.push(Relation { id: relation.id(), ways: members, tags });
                    }
                }
            }
            Ok(())
        })?;
        ways.sort_by_key(|way: &Way| way.id);
        relations.sort_by_key(|relation: &Relation| relation.id);
        Ok((ways, relations))
    }

    /// The ways of these identifiers, whatever their tags.
    pub(crate) fn ways_by_id(
        &self,
        wanted: &std::collections::HashSet<i64>,
    ) -> Result<HashMap<i64, Vec<i64>>> {
        let mut found = HashMap::new();
        if wanted.is_empty() {
            return Ok(found);
        }
        self.blocks(&mut |block| {
            for group in block.groups() {
                for way in group.ways().filter(|way| wanted.contains(&way.id())) {
                    found.insert(way.id(), way.refs().collect());
                }
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// All tagged nodes, and all relations with the nodes among their members, for which the filters say yes, each sorted by
    /// identifier.
    pub(crate) fn nodes_and_routes(
        &self,
        node_wanted: &dyn Fn(&Tags) -> bool,
        route_wanted: &dyn Fn(&Tags) -> bool,
    ) -> Result<(Vec<Node>, Vec<Route>)> {
        let (mut nodes, mut routes) = (Vec::new(), Vec::new());
        self.blocks(&mut |block| {
            let texts = block.raw_stringtable();
            let mut take = |id: i64, longitude: f64, latitude: f64, tags: Tags| {
                if !node_wanted(&tags) {
                    return Ok(());
                }
                let position = on_earth(id, longitude, latitude)?;
                nodes.push(Node { id, position, tags });
                Ok::<(), String>(())
            };
            for group in block.groups() {
                for node in group.nodes() {
                    take(node.id(), node.lon(), node.lat(), tags(texts, node.raw_tags())?)?;
                }
                for node in group.dense_nodes() {
                    let indices = node.raw_tags().map(|(key, value)| (key as u32, value as u32));
                    take(node.id(), node.lon(), node.lat(), tags(texts, indices)?)?;
                }
                for relation in group.relations() {
                    let tags = tags(texts, relation.raw_tags())?;
                    if route_wanted(&tags) {
                        let members =
                            relation.members().filter(|member| member.member_type == RelMemberType::Node);
                        let nodes = members.map(|member| member.member_id).collect();
                        routes.push(Route { id: relation.id(), nodes, tags });
                    }
                }
            }
            Ok(())
        })?;
        nodes.sort_by_key(|node: &Node| node.id);
        routes.sort_by_key(|route: &Route| route.id);
        Ok((nodes, routes))
    }

    /// The positions of these nodes, as far as the file has them (an extract cuts ways at its edge).
    pub(crate) fn positions(
        &self,
        wanted: &std::collections::HashSet<i64>,
    ) -> Result<HashMap<i64, Position>> {
        let mut found = HashMap::with_capacity(wanted.len());
        self.blocks(&mut |block| {
            let mut take = |id: i64, longitude: f64, latitude: f64| {
                if !wanted.contains(&id) {
                    return Ok(());
                }
                found.insert(id, on_earth(id, longitude, latitude)?);
                Ok::<(), String>(())
            };
            for group in block.groups() {
                for node in group.nodes() {
                    take(node.id(), node.lon(), node.lat())?;
                }
                for node in group.dense_nodes() {
                    take(node.id(), node.lon(), node.lat())?;
                }
            }
            Ok(())
        })?;
        Ok(found)
    }
}

fn on_earth(id: i64, longitude: f64, latitude: f64) -> Result<Position, String> {
    if longitude.abs() <= 180.0 && latitude.abs() <= 90.0 {
        return Ok(Position { longitude, latitude });
    }
    Err(format!("node {id} lies at {longitude} {latitude}, which is not on Earth"))
}

/// Tags from indices into the block's texts.
fn tags(texts: &[Vec<u8>], indices: impl Iterator<Item = (u32, u32)>) -> Result<Tags, String> {
    let text = |index: u32| -> Result<String, String> {
        let bytes =
            texts.get(index as usize).ok_or_else(|| format!("text {index} of {} is named", texts.len()))?;
        String::from_utf8(bytes.clone()).map_err(|_| format!("text {index} is not UTF-8"))
    };
    indices.map(|(key, value)| Ok((text(key)?, text(value)?))).collect()
}
