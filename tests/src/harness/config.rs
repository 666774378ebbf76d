//! A gateway's configuration: one that fits a simulator, and what a test lays over it.

use anyhow::Context as _;
use toml::{Table, Value};

use crate::simulator::{AUDIENCE, Simulator};

/// The content of a `gateway.toml`.
#[derive(Debug, Clone)]
pub struct Config {
    table: Table,
}

impl Config {
    /// A configuration with the simulator as its only backend, deployments `chat`, `embed` and `instruct`, generous
    /// limits, and everything else on loopback and in the site's directory.
    ///
    /// # Errors
    /// When the text below is no TOML, which would be a bug.
    pub fn for_simulator(simulator: &Simulator) -> anyhow::Result<Self> {
        Self::for_azure(&simulator.endpoint())
    }

    /// [`Config::for_simulator`] for one that runs elsewhere.
    ///
    /// # Errors
    /// When the text below is no TOML, which would be a bug.
    pub fn for_azure(endpoint: &str) -> anyhow::Result<Self> {
        let backend = format!(
            "[[backends]]\nname = \"simulator\"\nendpoint = \"{endpoint}\"\nscope = \"{AUDIENCE}/.default\"\n"
        );
        Self { table: Table::new() }.with(BASE)?.with(&backend)
    }

    /// Lays a piece of configuration over this one: tables merge, everything else is replaced.
    ///
    /// # Errors
    /// When it is no TOML.
    pub fn with(mut self, piece: &str) -> anyhow::Result<Self> {
        let piece: Table =
            piece.parse().with_context(|| format!("in the piece of configuration:\n{piece}"))?;
        merge(&mut self.table, piece);
        Ok(self)
    }

    /// Takes a key, or a table, away: `&["tiers", "default", "spend_quota"]`.
    #[must_use]
    pub fn without(mut self, path: &[&str]) -> Self {
        let Some((last, tables)) = path.split_last() else { return self };
        let table = tables
            .iter()
            .try_fold(&mut self.table, |table, key| table.get_mut(*key).and_then(Value::as_table_mut));
        if let Some(table) = table {
            table.remove(*last);
        }
        self
    }

    /// The deployments, by name and model.
    pub fn deployments(&self) -> impl Iterator<Item = (String, String)> {
        let deployments = self.table.get("deployments").and_then(Value::as_table);
        deployments.into_iter().flatten().filter_map(|(name, deployment)| {
            Some((name.clone(), deployment.get("model")?.as_str()?.to_owned()))
        })
    }

    /// The text of the file.
    #[must_use]
    pub fn text(&self) -> String {
        self.table.to_string()
    }
}

fn merge(into: &mut Table, piece: Table) {
    for (key, value) in piece {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(piece)) => merge(into, piece),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

const BASE: &str = r#"
[listen]
address = "127.0.0.1:0"
certificate = "tls/tls.crt"
private_key = "tls/tls.key"

[admin]
address = "127.0.0.1:0"

[identity]
source = "managed"

# The simulator writes as fast as it can.
[deployments.chat]
model = "gpt-4o-mini"
max_tokens_per_second = 1000000

[deployments.embed]
model = "text-embedding-3-small"

[deployments.instruct]
model = "gpt-35-turbo-instruct"
max_tokens_per_second = 1000000

[prices."gpt-4o-mini"]
input = 0.15
cached_input = 0.075
output = 0.60

[prices."text-embedding-3-small"]
input = 0.02
cached_input = 0.02
output = 0.0

[prices."gpt-35-turbo-instruct"]
input = 1.5
cached_input = 1.5
output = 2.0

[tiers.default]
calls_per_minute = 100000
tokens_per_minute = 10000000
concurrent_calls = 1000
deployments = ["*"]
ceiling = "strict"

[store]
url = "file:state"

[kernel]
mode = "off"

[tenants]
file = "tenants.toml"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_merge_into_tables_and_replace_values() {
        let base = Config { table: Table::new() }.with(BASE).unwrap();
        let config = base
            .with("[tiers.default]\ncalls_per_minute = 3\n[tiers.gold]\ncalls_per_minute = 9\n")
            .unwrap()
            .without(&["tiers", "default", "ceiling"]);
        let parsed: Table = config.text().parse().unwrap();
        let tier = parsed["tiers"]["default"].as_table().unwrap();
        assert_eq!(tier["calls_per_minute"].as_integer(), Some(3));
        assert_eq!(tier["concurrent_calls"].as_integer(), Some(1000));
        assert!(!tier.contains_key("ceiling"));
        assert_eq!(parsed["tiers"]["gold"]["calls_per_minute"].as_integer(), Some(9));
        let deployments: Vec<_> = config.deployments().collect();
        assert_eq!(deployments.len(), 3);
        assert!(deployments.contains(&("chat".to_owned(), "gpt-4o-mini".to_owned())));
    }
}
