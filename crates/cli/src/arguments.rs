//! The command line: names that outside scripts rely on.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use twinlake_contracts::parse_us;
use twinlake_pipeline::parse_duration_us;

/// A city's and its factories' past, present and future in one relation.
#[derive(Debug, Parser)]
#[command(name = "twinlake", version, about, propagate_version = true)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Where the lake is: a folder or a URL [default: ./twinlake-data]
    #[arg(long, global = true, value_name = "URL", env = "TWINLAKE_LAKE")]
    pub lake: Option<String>,
    /// Where queries run: local, or a cluster as ballista://host:port [default: local]
    #[arg(long, global = true, value_name = "ENGINE", env = "TWINLAKE_ENGINE")]
    pub engine: Option<String>,
    /// A TOML file with settings (lake, engine, http, postgres, mqtt, pipelines, twins, tables, scenarios, lineage)
    #[arg(long, global = true, value_name = "FILE", env = "TWINLAKE_CONFIG")]
    pub config: Option<PathBuf>,
    /// The name of this process among several on one lake (letters, digits, '-'); each has logs of its own
    #[arg(long, global = true, value_name = "NAME", env = "TWINLAKE_NODE", value_parser = node_name)]
    pub node: Option<String>,
    /// Where OpenLineage events of runs are posted, for example http://127.0.0.1:5000
    #[arg(long, global = true, value_name = "URL", env = "OPENLINEAGE_URL")]
    pub lineage_url: Option<String>,
    /// Who runs this, for meta.runs [default: user@host]
    #[arg(long, global = true, value_name = "NAME", env = "TWINLAKE_WHO")]
    pub who: Option<String>,
    /// Say what is going on; twice says why
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// No progress bars
    #[arg(long, global = true)]
    pub no_progress: bool,
}

fn node_name(text: &str) -> Result<String, String> {
    let fits = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if !text.is_empty() && text.len() <= 60 && fits {
        return Ok(text.to_owned());
    }
    Err("a node's name has 1 to 60 letters, digits, '-' and '_'".to_owned())
}

/// Where the doors are.
#[derive(Debug, Clone, Default, Args)]
pub struct Doors {
    /// HTTP address [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", env = "TWINLAKE_HTTP")]
    pub http: Option<SocketAddr>,
    /// PostgreSQL address [default: 127.0.0.1:5433]
    #[arg(long, value_name = "ADDRESS", env = "TWINLAKE_POSTGRES")]
    pub postgres: Option<SocketAddr>,
    /// MQTT broker address [default: 127.0.0.1:1883]
    #[arg(long, value_name = "ADDRESS", env = "TWINLAKE_MQTT")]
    pub mqtt: Option<SocketAddr>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Helsinki in one go: broker, lake, map, live vehicles, twins and a what-if
    Demo(DemoOptions),
    /// Serve the lake over HTTP, PostgreSQL and MQTT until Ctrl-C
    Serve(ServeOptions),
    /// Cut queries into parts for executors, until Ctrl-C
    Scheduler(SchedulerOptions),
    /// Run parts of queries that a scheduler cuts, until Ctrl-C
    Executor(ExecutorOptions),
    /// Run pipelines
    Run {
        /// Pipeline files
        #[arg(required = true, value_name = "FILE.toml")]
        files: Vec<PathBuf>,
        /// Until the inputs are exhausted, instead of until Ctrl-C
        #[arg(long)]
        once: bool,
    },
    /// Run past messages through a pipeline again and exchange the rows that they made
    Reprocess(ReprocessOptions),
    /// Show what a folder of pipelines would change against what is applied to the lake
    Plan(PlanOptions),
    /// Apply a folder of pipelines: make and widen their tables, and remember them for `serve --applied`
    Apply(ApplyOptions),
    /// Check pipelines without running them
    Validate {
        /// Pipeline files
        #[arg(required = true, value_name = "FILE.toml")]
        files: Vec<PathBuf>,
    },
    /// Run the [[tests]] of pipelines
    Test {
        /// Pipeline files
        #[arg(required = true, value_name = "FILE.toml")]
        files: Vec<PathBuf>,
    },
    /// Draw a pipeline as a Mermaid or DOT graph
    Graph {
        /// The pipeline file
        #[arg(value_name = "FILE.toml")]
        file: PathBuf,
        /// DOT for Graphviz instead of Mermaid
        #[arg(long)]
        dot: bool,
    },
    /// Ask the lake in SQL, at a prompt or with -c
    Sql(SqlOptions),
    /// Judge the quality rules of tables over the lake; exit code 1 when a rule with severity stop does not hold
    Check(CheckOptions),
    /// What is known of tables: find, show, follow lineage, profile
    #[command(subcommand)]
    Catalog(CatalogCommand),
    /// Look after tables: versions, small files, old rows
    #[command(subcommand)]
    Table(TableCommand),
    /// Run a simulation operator on the twins or straight on the field's own files
    Simulate(SimulateOptions),
    /// What would be: list, create, run and drop scenarios
    #[command(subcommand)]
    Scenario(ScenarioCommand),
    /// Print a generated schema
    #[command(hide = true)]
    Schema {
        /// Which one
        what: SchemaKind,
    },
}

#[derive(Debug, Clone, Args)]
pub struct DemoOptions {
    /// Exit when all is shown, instead of serving until Ctrl-C
    #[arg(long)]
    pub once: bool,
    /// How many times faster than the original pace the capture is replayed; 0 is as fast as possible
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    pub speed: f64,
    #[command(flatten)]
    pub doors: Doors,
}

#[derive(Debug, Clone, Args)]
pub struct ServeOptions {
    /// Pipelines to run beside the service
    #[arg(long = "pipeline", value_name = "FILE.toml")]
    pub pipelines: Vec<PathBuf>,
    /// Run the pipelines that were applied to the lake, too
    #[arg(long)]
    pub applied: bool,
    #[command(flatten)]
    pub doors: Doors,
}

#[derive(Debug, Clone, Args)]
pub struct SchedulerOptions {
    /// Where executors and clients come; nobody is asked who they are
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:50050",
        env = "TWINLAKE_SCHEDULER_LISTEN"
    )]
    pub listen: SocketAddr,
    /// After how many seconds of silence an executor is lost and others do its work
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(6..))]
    pub executor_timeout: u64,
}

#[derive(Debug, Clone, Args)]
pub struct ExecutorOptions {
    /// The scheduler, as ballista://host:port or host:port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50050", env = "TWINLAKE_SCHEDULER")]
    pub scheduler: String,
    /// Where other executors and clients fetch rows; nobody is asked who they are
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50051", env = "TWINLAKE_EXECUTOR_LISTEN")]
    pub listen: SocketAddr,
    /// The name or address under which others reach it [default: the one it listens on]
    #[arg(long, value_name = "HOST")]
    pub reached_as: Option<String>,
    /// A folder for rows between parts of queries [default: one of its own, gone at the end]
    #[arg(long, value_name = "FOLDER")]
    pub work_dir: Option<PathBuf>,
    /// How many parts run at a time [default: the number of cores]
    #[arg(long, value_name = "N")]
    pub slots: Option<NonZeroUsize>,
    /// How many MiB all parts together may hold in memory before they use files [default: 7/10 of the machine's]
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u64>,
}

#[derive(Debug, Clone, Args)]
pub struct PlanOptions {
    /// The folder; every .toml in it is a pipeline
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Args)]
pub struct ApplyOptions {
    /// The folder; every .toml in it is a pipeline
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Run past messages again where tables hold rows that the folder's pipelines would make in another way
    #[arg(long)]
    pub rebuild: bool,
}

#[derive(Debug, Clone, Args)]
#[allow(clippy::struct_excessive_bools, reason = "options of a command line")]
pub struct ReprocessOptions {
    /// The pipeline file, as it is now
    #[arg(value_name = "FILE.toml")]
    pub file: PathBuf,
    /// Messages that became known at this time or later (RFC 3339; without a zone it is UTC) [default: the first]
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub from: Option<i64>,
    /// Messages that became known before this time [default: the last]
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub to: Option<i64>,
    /// Messages that satisfy this SQL condition over raw.<source> (_sequence, _ingested_at, source, ordinal, token, origin, payload)
    #[arg(long = "where", value_name = "SQL")]
    pub condition: Option<String>,
    /// Take in the rows that were refused as late: the whole past, with as much more allowed lateness
    #[arg(long, conflicts_with_all = ["from", "to", "condition", "warm_up"])]
    pub stale: bool,
    /// Then run the applied pipelines again that look up tables of this one, in the order of their dependence
    #[arg(long)]
    pub downstream: bool,
    /// Say what would change and how long it may take; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How many pieces run at a time
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN)]
    pub parallel: NonZeroUsize,
    /// How far before their first message pieces begin where steps remember earlier rows, such as 10m or 2h; exact when
    /// they remember nothing older [default: from the first message, in one pass]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub warm_up: Option<i64>,
    /// How many messages a piece has: what is done again after a crash
    #[arg(long, value_name = "MESSAGES", default_value_t = 250_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub piece: u64,
    /// Print what was done as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub enum TableCommand {
    /// List a table's versions, the newest first
    History {
        /// The table, as schema.table
        table: String,
        /// At most so many
        #[arg(long, default_value_t = 20, value_name = "N")]
        limit: usize,
    },
    /// Join small files and cluster their rows in space and time
    Compact {
        /// Tables, as schema.table [default: all]
        tables: Vec<String>,
    },
    /// Rename or widen columns (the files are written anew, in one commit), add or drop constraints
    Alter(AlterOptions),
    /// Take out rows that are older than a length of time
    Expire {
        /// The table, as schema.table
        table: String,
        /// How old, such as 90d
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        older_than: i64,
        /// The column with the time [default: ts, else _ingested_at]
        #[arg(long, value_name = "COLUMN")]
        column: Option<String>,
    },
    /// Delete files that only old versions need; versions that recorded runs have read are kept
    Vacuum {
        /// Tables, as schema.table [default: all]
        tables: Vec<String>,
        /// How long versions can be gone back to
        #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = duration)]
        keep: i64,
        /// Say how many files, and delete none
        #[arg(long)]
        dry_run: bool,
    },
    /// Make the rows of an earlier version the newest again
    #[command(disable_version_flag = true)]
    Restore {
        /// The table, as schema.table
        table: String,
        /// The version
        #[arg(long, value_name = "N", conflicts_with = "at")]
        version: Option<u64>,
        /// The version that was the newest at this time
        #[arg(long, value_name = "TIME", value_parser = instant)]
        at: Option<i64>,
    },
}

#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
pub struct AlterChanges {
    /// Give a column another name; writers that use the old one are still understood
    #[arg(long, value_name = "OLD=NEW", value_parser = pair)]
    pub rename: Vec<(String, String)>,
    /// Give a column, by its new name, a wider type: int, bigint, real, double, decimal(12,2)
    #[arg(long, value_name = "COLUMN=TYPE", value_parser = pair)]
    pub widen: Vec<(String, String)>,
    /// Let go of a name that a column had, so that a new column can have it
    #[arg(long, value_name = "NAME")]
    pub forget: Vec<String>,
    /// Add a condition on each row; rows there must fulfil it, and rows to come become rejects where they do not
    #[arg(long, value_name = "NAME=EXPRESSION", value_parser = pair)]
    pub constraint: Vec<(String, String)>,
    /// Take a condition away
    #[arg(long, value_name = "NAME")]
    pub drop_constraint: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub struct AlterOptions {
    /// The table, as schema.table
    pub table: String,
    #[command(flatten)]
    pub changes: AlterChanges,
}

/// Two words around the first equals sign.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() && !value.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err(format!("'{text}' has not the form NAME=VALUE")),
    }
}

/// A time in microseconds since the epoch.
fn instant(text: &str) -> Result<i64, String> {
    parse_us(text).ok_or_else(|| format!("'{text}' is no time: write 2018-10-09T04:32:53Z or 2018-10-09"))
}

/// A duration in microseconds.
fn duration(text: &str) -> Result<i64, String> {
    parse_duration_us(text).ok_or_else(|| format!("'{text}' is no length of time: write 10m or 2h"))
}

#[derive(Debug, Clone, Args)]
pub struct SqlOptions {
    /// Run these statements and exit
    #[arg(short = 'c', long = "command", value_name = "SQL")]
    pub command: Option<String>,
    /// How to print results
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

#[derive(Debug, Clone, Args)]
pub struct SimulateOptions {
    /// The operator, for example traffic_assignment
    pub operator: String,
    /// The network, in the field's own format (.tntp for traffic, .m for power_flow, .inp for water_network, .toml for
    /// production_line, a folder of GTFS files for public transport); without it the twins are the network
    #[arg(long, value_name = "FILE")]
    pub network: Option<PathBuf>,
    /// The demand, in the field's own format (.tntp)
    #[arg(long, value_name = "FILE")]
    pub demand: Option<PathBuf>,
    /// A table of the operator, from a CSV file whose first line names the columns; needs --network
    #[arg(long = "input", value_name = "ROLE=FILE")]
    pub input: Vec<String>,
    /// A parameter of the operator
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The scenario to run in (twins only)
    #[arg(long, value_name = "NAME")]
    pub scenario: Option<String>,
    /// The twin model whose simulation is meant, if several have one of the operator
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// The seed of the random numbers
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Which result table to write or print, with --network [default: the operator's first]
    #[arg(long, value_name = "ROLE")]
    pub table: Option<String>,
    /// Write the result rows to this file
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How to write the result rows [default: by the file's ending, else table]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Print the summary (objective, gap, iterations) in this form instead of the rows
    #[arg(long, value_enum)]
    pub summary: Option<SummaryFormat>,
}

#[derive(Debug, Clone, Args)]
pub struct CheckOptions {
    /// The tables (default: all that have rules)
    #[arg(value_name = "TABLE")]
    pub tables: Vec<String>,
    /// How to print results
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

#[derive(Debug, Clone, Subcommand)]
pub enum ScenarioCommand {
    /// All scenarios: those of files and those that were created
    List {
        /// How to print them
        #[arg(long, value_enum)]
        format: Option<Format>,
    },
    /// A scenario with all that it says
    Show {
        /// The scenario
        name: String,
        /// How to print it; JSON, if nothing is said
        #[arg(long, value_enum)]
        format: Option<Format>,
    },
    /// Create a scenario in the lake, or replace the created one of that name
    Create {
        /// What it says, in TOML or JSON
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Its name, if the file does not say it
        #[arg(long)]
        name: Option<String>,
        /// How to print it; JSON, if nothing is said
        #[arg(long, value_enum)]
        format: Option<Format>,
    },
    /// Run what a scenario says, for each member of its ensemble
    Run {
        /// The scenario
        name: String,
        /// How to print its runs
        #[arg(long, value_enum)]
        format: Option<Format>,
    },
    /// Drop a created scenario; what was run in it stays
    Drop {
        /// The scenario
        name: String,
        /// How to print what was done
        #[arg(long, value_enum)]
        format: Option<Format>,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub enum CatalogCommand {
    /// Find tables and columns by words in names, descriptions, owners, tags and units
    Search {
        /// The words; a table must have all of them
        #[arg(required = true, value_name = "WORDS")]
        words: Vec<String>,
        /// How to print what was found
        #[arg(long, value_enum, default_value_t = TextFormat::Text)]
        format: TextFormat,
    },
    /// Show a table: owner, freshness, columns, quality, the newest runs
    Show {
        /// The table
        table: String,
        /// How to print it
        #[arg(long, value_enum, default_value_t = TextFormat::Text)]
        format: TextFormat,
    },
    /// Follow a table or a column to its sources, or to what is made of it
    Lineage {
        /// The table, or the table and a column: traffic.vehicle_position.speed_mps
        #[arg(value_name = "TABLE[.COLUMN]")]
        place: String,
        /// To the sources (the default)
        #[arg(long, conflicts_with = "down")]
        up: bool,
        /// To what is made of it
        #[arg(long)]
        down: bool,
        /// How to print the way
        #[arg(long, value_enum, default_value_t = LineageFormat::Text)]
        format: LineageFormat,
    },
    /// Look into a table or file: figures of its columns, and proposals of types, units, keys, reference systems; personal
    /// data, duplicates
    Profile {
        /// A table, or a file: trips.parquet
        #[arg(value_name = "TABLE|FILE")]
        what: String,
        /// How many rows to look at
        #[arg(long, default_value_t = 100_000, value_name = "ROWS", conflicts_with = "all")]
        rows: usize,
        /// Look at all rows
        #[arg(long)]
        all: bool,
        /// The columns of the key, to find rows that repeat it [default: the key of the table's definition]
        #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
        key: Vec<String>,
        /// How to print it
        #[arg(long, value_enum, default_value_t = TextFormat::Text)]
        format: TextFormat,
    },
    /// Judge the quality rules of tables (as twinlake check)
    Check(CheckOptions),
}

/// How something is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TextFormat {
    /// For people
    Text,
    /// One JSON value
    Json,
}

/// How a way is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LineageFormat {
    /// For people, indented
    Text,
    /// One JSON object
    Json,
    /// A Mermaid flow chart
    Mermaid,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people
    Table,
    /// Comma-separated, with a header
    Csv,
    /// An array of objects
    Json,
    /// An Arrow IPC stream
    Arrow,
    /// A Parquet file
    Parquet,
}

/// How a summary is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SummaryFormat {
    /// One JSON object
    Json,
}

/// The schemas that can be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaKind {
    /// JSON Schema of pipeline files
    Pipeline,
    /// JSON Schema of table definitions
    Table,
    /// OpenAPI of the HTTP service
    Openapi,
    /// Reference of the SQL functions of space and time, as Markdown
    Functions,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn no_two_arguments_of_a_command_have_one_name() {
        Arguments::command().debug_assert();
    }
}
