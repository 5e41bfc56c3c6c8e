//! All migrations of an artifact.

use std::collections::BTreeMap;

use crate::{Finding, Phase, Script, Version, file_name, script};

/// Migrations in the order of their versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    migrations: Vec<Migration>,
}

/// One version's scripts; at least one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its version.
    pub version: Version,
    /// Before visitors reach the new version.
    pub expand: Option<Script>,
    /// After *confirm*.
    pub contract: Option<Script>,
    /// Takes an unconfirmed expand back.
    pub down: Option<Script>,
    /// Only looks.
    pub verify: Option<Script>,
}

/// Most files of SQL in a set.
const MAX_FILES: usize = 10_000;

impl Set {
    /// Reads files given as path and content: `v1.2.0.sql` or `v1.2.0.expand.sql` is expand, and `.contract.sql`,
    /// `.down.sql`, `.verify.sql`. Files that are no SQL are passed over. Everything that is wrong is told at once, in
    /// the order of files and lines.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Set, Vec<Finding>> {
        let mut reading = Reading::default();
        for (path, bytes) in files {
            reading.file(path, bytes);
        }
        reading.finish()
    }

    /// In the order of versions.
    pub fn migrations(&self) -> &[Migration] {
        &self.migrations
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.migrations.is_empty()
    }

    /// The migration of a version.
    pub fn get(&self, version: &Version) -> Option<&Migration> {
        self.migrations.iter().find(|migration| migration.version == *version)
    }
}

impl Migration {
    fn new(version: Version) -> Self {
        Self { version, expand: None, contract: None, down: None, verify: None }
    }

    /// The script of a phase.
    pub fn script(&self, phase: Phase) -> Option<&Script> {
        match phase {
            Phase::Expand => self.expand.as_ref(),
            Phase::Contract => self.contract.as_ref(),
            Phase::Down => self.down.as_ref(),
            Phase::Verify => self.verify.as_ref(),
        }
    }

    fn put(&mut self, script: Script) {
        let place = match script.phase {
            Phase::Expand => &mut self.expand,
            Phase::Contract => &mut self.contract,
            Phase::Down => &mut self.down,
            Phase::Verify => &mut self.verify,
        };
        *place = Some(script);
    }
}

#[derive(Default)]
struct Reading {
    migrations: BTreeMap<Version, Migration>,
    /// Where each script came from, also of those that could not be read.
    seen: BTreeMap<(Version, Phase), String>,
    files: usize,
    findings: Vec<Finding>,
}

impl Reading {
    fn file(&mut self, path: &str, bytes: &[u8]) {
        let name = match file_name::read(path) {
            None => return,
            Some(Ok(name)) => name,
            Some(Err(message)) => {
                let hint = "name it after its version: `v1.2.0.sql`, `v1.2.0.contract.sql`";
                self.findings.push(Finding::whole(path, "file-name", message, hint));
                return;
            }
        };
        self.files += 1;
        if self.files > MAX_FILES {
            return;
        }
        let read = script::read(path, bytes, name.phase);
        let phase = read.as_ref().map_or(name.phase.unwrap_or(Phase::Expand), |script| script.phase);
        if let Some(before) = self.seen.insert((name.version.clone(), phase), path.to_owned()) {
            let message = format!("version {} has its {phase} file twice: `{before}` too", name.version);
            self.findings.push(Finding::whole(path, "version-twice", message, "keep one of them"));
        }
        match read {
            Ok(script) => {
                let version = name.version.clone();
                self.migrations.entry(name.version).or_insert_with(|| Migration::new(version)).put(script);
            }
            Err(findings) => self.findings.extend(findings),
        }
    }

    fn finish(mut self) -> Result<Set, Vec<Finding>> {
        if self.files > MAX_FILES {
            let message = format!("{} files of SQL; a set has at most {MAX_FILES}", self.files);
            self.findings.push(Finding::whole("", "file-count", message, "squash the oldest into one"));
        }
        for ((version, phase), path) in &self.seen {
            if *phase == Phase::Down && !self.seen.contains_key(&(version.clone(), Phase::Expand)) {
                let message = format!("version {version} has nothing that this could take back");
                let hint = "a down file stands beside the expand file of the same version";
                self.findings.push(Finding::whole(path, "down-alone", message, hint));
            }
        }
        if !self.findings.is_empty() {
            self.findings.sort();
            return Err(self.findings);
        }
        Ok(Set { migrations: self.migrations.into_values().collect() })
    }
}
