//! One request of a visitor, and its line in the file that the account is made of.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// One request.
#[derive(Clone, Debug, Default)]
pub struct Visit {
    /// Whose.
    pub person: u64,
    /// When it began, in microseconds since 1970.
    pub began_us: u64,
    /// Until its answer was complete or it failed, in microseconds.
    pub took_us: u64,
    /// The route epoch that the answer is marked with.
    pub epoch: Option<u64>,
    /// The answer is marked as one of the canary side.
    pub canary: bool,
    /// The version that every line of the page names.
    pub version: String,
    /// What went wrong: no connection, an answer cut short, a torn page, another status than 200.
    pub failure: Option<String>,
}

impl Visit {
    /// Its line.
    pub fn line(&self) -> Value {
        json!([self.person, self.began_us, self.took_us, self.epoch, self.canary, self.version, self.failure])
    }

    /// Reads a line.
    pub fn parse(line: &str) -> Result<Self> {
        let fields: Value = serde_json::from_str(line).context("a line of the visitors is no JSON")?;
        let number = |at: usize| fields.get(at).and_then(Value::as_u64);
        let text = |at: usize| fields.get(at).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            person: number(0).context("a visit without a person")?,
            began_us: number(1).context("a visit without a beginning")?,
            took_us: number(2).context("a visit without an end")?,
            epoch: number(3),
            canary: fields.get(4).and_then(Value::as_bool).unwrap_or(false),
            version: text(5).unwrap_or_default(),
            failure: text(6),
        })
    }

    /// When it was over, in microseconds since 1970.
    pub fn ended_us(&self) -> u64 {
        self.began_us.saturating_add(self.took_us)
    }
}
