//! Where a cluster is: `ballista://host:port?partitions=8`.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use twinlake_contracts::Error;
use url::Url;

/// How many parts a query is cut into when nothing is said.
const PARTITIONS: NonZeroUsize = NonZeroUsize::new(8).unwrap();
/// The scheduler's port when none is said.
const PORT: u16 = 50050;

/// The scheduler's address, and how finely queries are cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address.
    pub host: String,
    /// The port of the scheduler.
    pub port: u16,
    /// How many parts rows are divided into; the slots of all executors together, or a few times as many.
    pub partitions: NonZeroUsize,
}

impl Address {
    /// The address that Ballista's client takes.
    pub(crate) fn url(&self) -> String {
        format!("http://{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ballista://{}:{}", self.host, self.port)
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |what: String| {
            Error::config(format!("'{text}' is no address of an engine: {what}"))
                .with_help("write local, or ballista://host:port, or ballista://host:port?partitions=16")
        };
        let url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
        if url.scheme() != "ballista" {
            return Err(wrong(format!("'{}' is not ballista", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() || url.path().len() > 1 {
            return Err(wrong("it has more than a host and a port".to_owned()));
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| wrong("it has no host".to_owned()))?.to_owned();
        let mut partitions = PARTITIONS;
        for (key, value) in url.query_pairs() {
            match (key.as_ref(), value.parse()) {
                ("partitions", Ok(count)) => partitions = count,
                ("partitions", Err(_)) => return Err(wrong(format!("'{value}' is no number of partitions"))),
                (other, _) => return Err(wrong(format!("it has no setting '{other}'"))),
            }
        }
        Ok(Self { host, port: url.port().unwrap_or(PORT), partitions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let address: Address = "ballista://127.0.0.1:7000?partitions=16".parse().unwrap();
        assert_eq!((address.port, address.partitions.get()), (7000, 16));
        assert_eq!(address.url(), "http://127.0.0.1:7000");
        let address: Address = "ballista://planner".parse().unwrap();
        assert_eq!(address.to_string(), "ballista://planner:50050");
        assert_eq!(address.partitions, PARTITIONS);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("spark://host", "'spark' is not ballista"),
            ("ballista://", "no host"),
            ("ballista://host?partitions=0", "'0' is no number"),
            ("ballista://host?slots=2", "no setting 'slots'"),
            ("ballista://me:secret@host", "more than a host"),
            ("host:7000", "is no address"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
