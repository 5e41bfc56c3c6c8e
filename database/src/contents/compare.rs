//! What a copy lacks, or has that the database had not.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::{Contents, Name, Scattered, Sequence, Table};

/// Most differences that are told: the first ones tell enough.
const MAX_TOLD: usize = 20;

/// Differences in words, the first ones of each kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Differences {
    /// The copy is not what was dumped.
    pub wrong: Vec<String>,
    /// What another version of the server or of an extension brings.
    pub upgraded: Vec<String>,
}

/// Every difference between what a manifest says and what a restored copy holds. Where the server is another one, or an
/// extension has another version, the number of functions, types and the like says nothing; nor does which partition a row is in,
/// of tables that scatter theirs.
pub(crate) fn differences(
    manifest: &Contents,
    copy: &Contents,
    scattered: &Scattered,
    other_server: bool,
) -> Differences {
    let mut found = Vec::new();
    tables(manifest, copy, scattered, &mut found);
    sequences(manifest, copy, &mut found);
    if manifest.large_objects != copy.large_objects {
        found.push(was("large objects", manifest.large_objects, copy.large_objects));
    }
    let (absent, mut upgraded) = maps("extension", &manifest.extensions, &copy.extensions);
    found.extend(absent);
    let (absent, changed) = maps("number of", &manifest.objects, &copy.objects);
    let counts = if other_server || !upgraded.is_empty() { &mut upgraded } else { &mut found };
    counts.extend(absent.into_iter().chain(changed));
    found.truncate(MAX_TOLD);
    upgraded.truncate(MAX_TOLD);
    Differences { wrong: found, upgraded }
}

fn was(what: &str, expected: impl Display, found: impl Display) -> String {
    format!("{what}: {found} instead of {expected}")
}

fn tables(manifest: &Contents, copy: &Contents, scattered: &Scattered, found: &mut Vec<String>) {
    let key = |table: &Table| (table.schema.clone(), table.name.clone());
    let mut whole: BTreeMap<&Name, (u64, u64)> = BTreeMap::new();
    let mut copied: BTreeMap<_, &Table> = copy.tables.iter().map(|table| (key(table), table)).collect();
    for table in &manifest.tables {
        let name = format!("`{}.{}`", table.schema, table.name);
        let copy = copied.remove(&key(table));
        let scattered = scattered.whole(&key(table));
        if let Some(of) = scattered {
            let (expected, found) = whole.entry(of).or_default();
            *expected = expected.saturating_add(table.rows);
            *found = found.saturating_add(copy.map_or(0, |copy| copy.rows));
        }
        match copy {
            None => found.push(format!("table {name} is missing")),
            Some(copy) if copy.rows != table.rows && scattered.is_none() => {
                found.push(was(&format!("rows of {name}"), table.rows, copy.rows));
            }
            Some(copy) if copy.owner != table.owner && !copy.owner.is_empty() => {
                found.push(was(&format!("owner of {name}"), &table.owner, &copy.owner));
            }
            Some(_) => {}
        }
    }
    let differing = whole.into_iter().filter(|(_, (expected, found))| expected != found);
    found.extend(differing.map(|((schema, name), (expected, found))| {
        was(&format!("rows of `{schema}.{name}`"), expected, found)
    }));
    found.extend(copied.keys().map(|(schema, name)| format!("table `{schema}.{name}` was not there")));
}

fn sequences(manifest: &Contents, copy: &Contents, found: &mut Vec<String>) {
    let key = |sequence: &Sequence| (sequence.schema.clone(), sequence.name.clone());
    let copied: BTreeMap<_, i64> = copy.sequences.iter().map(|copy| (key(copy), copy.after)).collect();
    for sequence in &manifest.sequences {
        let name = format!("`{}.{}`", sequence.schema, sequence.name);
        // Sequences move while they are dumped, up or down.
        let (low, high) = (sequence.before.min(sequence.after), sequence.before.max(sequence.after));
        match copied.get(&key(sequence)) {
            None => found.push(format!("sequence {name} is missing")),
            Some(value) if (low..=high).contains(value) => {}
            Some(value) => found.push(was(&format!("sequence {name}"), format!("{low} to {high}"), value)),
        }
    }
}

/// What only one of both has, and what is another in both.
fn maps<V: PartialEq + Display>(
    what: &str,
    manifest: &BTreeMap<String, V>,
    copy: &BTreeMap<String, V>,
) -> (Vec<String>, Vec<String>) {
    let (mut absent, mut changed) = (Vec::new(), Vec::new());
    for (name, expected) in manifest {
        match copy.get(name) {
            None => absent.push(format!("{what} `{name}` is missing")),
            Some(copy) if copy != expected => changed.push(was(&format!("{what} {name}"), expected, copy)),
            Some(_) => {}
        }
    }
    let added = copy.keys().filter(|name| !manifest.contains_key(*name));
    absent.extend(added.map(|name| format!("{what} `{name}` was not there")));
    (absent, changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contents::Counters;

    fn contents() -> Contents {
        Contents {
            tables: vec![Table {
                schema: "public".into(),
                name: "layers".into(),
                owner: "gis".into(),
                rows: 7,
                counters: Counters::default(),
            }],
            sequences: vec![Sequence { schema: "public".into(), name: "ids".into(), before: 5, after: 9 }],
            large_objects: 2,
            extensions: [("postgis".to_owned(), "3.3.2".to_owned())].into(),
            objects: [("triggers".to_owned(), 1)].into(),
            ..Contents::default()
        }
    }

    type Change = fn(&mut Contents);

    fn compared(other_server: bool, change: impl FnOnce(&mut Contents)) -> Differences {
        let mut copy = contents();
        change(&mut copy);
        differences(&contents(), &copy, &Scattered::default(), other_server)
    }

    fn told(change: impl FnOnce(&mut Contents)) -> Vec<String> {
        compared(false, change).wrong
    }

    #[test]
    fn every_difference_is_told_and_none_that_is_none() {
        assert!(told(|_| {}).is_empty());
        assert!(told(|copy| copy.tables[0].counters.inserted = 9).is_empty());
        assert!(told(|copy| copy.sequences[0].after = 6).is_empty());
        let cases: [(Change, &str); 7] = [
            (|copy| copy.tables[0].rows = 6, "rows of `public.layers`: 6 instead of 7"),
            (|copy| copy.tables[0].owner = "x".into(), "owner of `public.layers`: x instead of gis"),
            (|copy| copy.tables.clear(), "table `public.layers` is missing"),
            (|copy| copy.sequences[0].after = 4, "sequence `public.ids`: 4 instead of 5 to 9"),
            (|copy| copy.large_objects = 1, "large objects: 1 instead of 2"),
            (|copy| copy.extensions.clear(), "extension `postgis` is missing"),
            (|copy| _ = copy.objects.insert("triggers".into(), 0), "number of triggers: 0 instead of 1"),
        ];
        for (change, expected) in cases {
            assert_eq!(told(change), [expected]);
        }
    }
    #[test]
    fn what_an_upgrade_brings_is_told_apart_from_what_is_lost() {
        let fewer: Change = |copy| _ = copy.objects.insert("triggers".into(), 0);
        let number = "number of triggers: 0 instead of 1".to_owned();
        assert_eq!(compared(true, fewer), Differences { wrong: vec![], upgraded: vec![number.clone()] });
        let upgraded = compared(false, |copy| {
            fewer(copy);
            copy.extensions.insert("postgis".into(), "3.4".into());
            copy.tables[0].rows = 6;
        });
        assert_eq!(upgraded.wrong, ["rows of `public.layers`: 6 instead of 7"]);
        assert_eq!(upgraded.upgraded, ["extension postgis: 3.4 instead of 3.3.2".to_owned(), number]);
        let lost = compared(true, |copy| copy.extensions.clear());
        assert_eq!(lost.wrong, ["extension `postgis` is missing"]);
    }
}
