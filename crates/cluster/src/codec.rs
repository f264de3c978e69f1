//! Plans as bytes: Ballista's operators, those of `spatial`, scans of tables, and functions with what they know.
//!
//! Every operator that is not DataFusion's own begins with the version of the program that wrote it. Since each part of a
//! query ends in one of Ballista's operators, a scheduler or executor of another version refuses it instead of
//! misunderstanding it.

use std::collections::HashMap;
use std::sync::Arc;

use ballista_core::serde::BallistaPhysicalExtensionCodec;
use datafusion::common::{Result, internal_datafusion_err, internal_err, not_impl_err, plan_err};
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::ScalarUDF;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf;
use prost::Message;
use twinlake_spatial::wire;

use crate::columns::ReadColumnsExec;
use crate::described;
use crate::work::{WorkExec, Worker};

/// What the bytes of an operator begin with.
const MAGIC: &[u8] = b"twinlake ";
/// The version of this program; plans of another one are refused.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What kind of operator follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One of Ballista's.
    Ballista = 0,
    /// One of space and time.
    Spatial = 1,
    /// A scan of a table.
    Columns = 2,
    /// Work that is no query.
    Work = 3,
}

#[derive(Clone, PartialEq, Message)]
struct Columns {
    #[prost(uint32, repeated, tag = "1")]
    places: Vec<u32>,
    #[prost(message, optional, tag = "2")]
    schema: Option<protobuf::Schema>,
}

/// See [the module](self).
#[derive(Debug)]
pub(crate) struct Codec {
    ballista: BallistaPhysicalExtensionCodec,
    functions: HashMap<String, Arc<ScalarUDF>>,
    /// Who does work that is no query.
    worker: Option<Arc<dyn Worker>>,
    version: &'static str,
}

impl Codec {
    /// With the functions of a session.
    pub(crate) fn new(state: &SessionState) -> Self {
        let functions = state.scalar_functions().clone();
        let ballista = BallistaPhysicalExtensionCodec::default();
        Self { ballista, functions, worker: None, version: VERSION }
    }

    /// With somebody who does work that is no query.
    pub(crate) fn with_worker(self, worker: Option<Arc<dyn Worker>>) -> Self {
        Self { worker, ..self }
    }

    /// As a program of another version has it.
    #[cfg(test)]
    pub(crate) fn of_version(self, version: &'static str) -> Self {
        Self { version, ..self }
    }

    fn begin(&self, kind: Kind, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(MAGIC);
        bytes.push(u8::try_from(self.version.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(self.version.as_bytes());
        bytes.push(kind as u8);
    }

    /// The kind of operator, and its own bytes.
    fn kind<'a>(&self, bytes: &'a [u8]) -> Result<(Kind, &'a [u8])> {
        let rest = bytes.strip_prefix(MAGIC).and_then(|rest| rest.split_first());
        let Some((length, rest)) = rest.filter(|(length, rest)| rest.len() > usize::from(**length)) else {
            return plan_err!("the plan is not one of twinlake");
        };
        let (version, rest) = rest.split_at(usize::from(*length));
        if version != self.version.as_bytes() {
            let theirs = String::from_utf8_lossy(version);
            return plan_err!(
                "the plan was made by twinlake {theirs}, this process is twinlake {}; clients, scheduler and executors must be \
                 of one version",
                self.version
            );
        }
        match rest.split_first() {
            Some((0, rest)) => Ok((Kind::Ballista, rest)),
            Some((1, rest)) => Ok((Kind::Spatial, rest)),
            Some((2, rest)) => Ok((Kind::Columns, rest)),
            Some((3, rest)) => Ok((Kind::Work, rest)),
            _ => internal_err!("the plan holds an operator of an unknown kind"),
        }
    }
}

fn write_columns(scan: &ReadColumnsExec) -> Result<Columns> {
    let places = scan.places().iter().map(|place| u32::try_from(*place));
    let places = places.collect::<std::result::Result<_, _>>();
    let schema = scan.schema();
    let schema = protobuf::Schema::try_from(schema.as_ref());
    Ok(Columns {
        places: places.map_err(|error| internal_datafusion_err!("too many columns: {error}"))?,
        schema: Some(
            schema.map_err(|error| internal_datafusion_err!("a schema cannot be written: {error}"))?,
        ),
    })
}

fn read_columns(bytes: &[u8], inputs: &[Arc<dyn ExecutionPlan>]) -> Result<ReadColumnsExec> {
    let unread = |error: String| internal_datafusion_err!("a scan cannot be read: {error}");
    let columns = Columns::decode(bytes).map_err(|error| unread(error.to_string()))?;
    let schema = columns.schema.ok_or_else(|| unread("it has no schema".to_owned()))?;
    let schema = arrow::datatypes::Schema::try_from(&schema).map_err(|error| unread(error.to_string()))?;
    let [input] = inputs else { return internal_err!("a scan came with {} inputs", inputs.len()) };
    let places = columns.places.into_iter().map(|place| place as usize).collect();
    ReadColumnsExec::try_new(Arc::clone(input), places, Arc::new(schema))
}

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (kind, bytes) = self.kind(bytes)?;
        match kind {
            Kind::Ballista => self.ballista.try_decode(bytes, inputs, context, converter),
            Kind::Spatial => wire::decode(bytes, inputs, &|node, schema| {
                let context = PhysicalPlanDecodeContext::new(context, self);
                converter.proto_to_physical_expr(node, schema, &context)
            }),
            Kind::Columns => Ok(Arc::new(read_columns(bytes, inputs)?)),
            Kind::Work => {
                let ([orders], Ok(job)) = (inputs, std::str::from_utf8(bytes)) else {
                    return internal_err!("work cannot be read");
                };
                Ok(Arc::new(WorkExec::new(Arc::clone(orders), job.into(), self.worker.clone())))
            }
        }
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        if let Some(scan) = node.downcast_ref::<ReadColumnsExec>() {
            self.begin(Kind::Columns, bytes);
            bytes.extend(write_columns(scan)?.encode_to_vec());
            return Ok(());
        }
        if let Some(work) = node.downcast_ref::<WorkExec>() {
            self.begin(Kind::Work, bytes);
            bytes.extend_from_slice(work.job().as_bytes());
            return Ok(());
        }
        let write = |expression: &Arc<dyn PhysicalExpr>| converter.physical_expr_to_proto(expression, self);
        if let Some(written) = wire::encode(node.as_ref(), &write)? {
            self.begin(Kind::Spatial, bytes);
            bytes.extend(written);
            return Ok(());
        }
        let mut written = Vec::new();
        if self.ballista.try_encode(Arc::clone(&node), &mut written, converter).is_err() {
            return not_impl_err!("the operator {}", node.name());
        }
        self.begin(Kind::Ballista, bytes);
        bytes.extend(written);
        Ok(())
    }

    fn try_decode_udf(&self, name: &str, bytes: &[u8]) -> Result<Arc<ScalarUDF>> {
        let Some(function) = self.functions.get(name).map(Arc::clone) else {
            return plan_err!("this process knows no function {name}");
        };
        if bytes.is_empty() { Ok(function) } else { described::read(function, bytes) }
    }

    fn try_encode_udf(&self, function: &ScalarUDF, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.extend(described::write(function)?.unwrap_or_default());
        Ok(())
    }
}
