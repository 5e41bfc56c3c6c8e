//! What a copy lacks, or has that the database had not.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::{Contents, Sequence, Table};

/// Most differences that are told: the first ones tell enough.
const MAX_TOLD: usize = 20;

/// Every difference between what a manifest says and what a restored copy holds, in words.
pub(crate) fn differences(manifest: &Contents, copy: &Contents) -> Vec<String> {
    let mut found = Vec::new();
    tables(manifest, copy, &mut found);
    sequences(manifest, copy, &mut found);
    if manifest.large_objects != copy.large_objects {
        found.push(was("large objects", manifest.large_objects, copy.large_objects));
    }
    maps("extension", &manifest.extensions, &copy.extensions, &mut found);
    maps("number of", &manifest.objects, &copy.objects, &mut found);
    found.truncate(MAX_TOLD);
    found
}

fn was(what: &str, expected: impl Display, found: impl Display) -> String {
    format!("{what}: {found} instead of {expected}")
}

fn tables(manifest: &Contents, copy: &Contents, found: &mut Vec<String>) {
    let key = |table: &Table| (table.schema.clone(), table.name.clone());
    let mut copied: BTreeMap<_, &Table> = copy.tables.iter().map(|table| (key(table), table)).collect();
    for table in &manifest.tables {
        let name = format!("`{}.{}`", table.schema, table.name);
        match copied.remove(&key(table)) {
            None => found.push(format!("table {name} is missing")),
            Some(copy) if copy.rows != table.rows => {
                found.push(was(&format!("rows of {name}"), table.rows, copy.rows));
            }
            Some(copy) if copy.owner != table.owner => {
                found.push(was(&format!("owner of {name}"), &table.owner, &copy.owner));
            }
            Some(_) => {}
        }
    }
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

fn maps<V: PartialEq + Display>(
    what: &str,
    manifest: &BTreeMap<String, V>,
    copy: &BTreeMap<String, V>,
    found: &mut Vec<String>,
) {
    for (name, expected) in manifest {
        match copy.get(name) {
            None => found.push(format!("{what} `{name}` is missing")),
            Some(copy) if copy != expected => found.push(was(&format!("{what} {name}"), expected, copy)),
            Some(_) => {}
        }
    }
    found.extend(
        copy.keys()
            .filter(|name| !manifest.contains_key(*name))
            .map(|name| format!("{what} `{name}` was not there")),
    );
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

    fn told(change: impl FnOnce(&mut Contents)) -> Vec<String> {
        let mut copy = contents();
        change(&mut copy);
        differences(&contents(), &copy)
    }

    #[test]
    fn every_difference_is_told_and_none_that_is_none() {
        assert!(told(|_| {}).is_empty());
        assert!(told(|copy| copy.tables[0].counters.inserted = 9).is_empty());
        assert!(told(|copy| copy.sequences[0].after = 6).is_empty());
        let cases: [(Change, &str); 8] = [
            (|copy| copy.tables[0].rows = 6, "rows of `public.layers`: 6 instead of 7"),
            (|copy| copy.tables[0].owner = "x".into(), "owner of `public.layers`: x instead of gis"),
            (|copy| copy.tables.clear(), "table `public.layers` is missing"),
            (|copy| copy.sequences[0].after = 4, "sequence `public.ids`: 4 instead of 5 to 9"),
            (|copy| copy.large_objects = 1, "large objects: 1 instead of 2"),
            (|copy| copy.extensions.clear(), "extension `postgis` is missing"),
            (
                |copy| _ = copy.extensions.insert("postgis".into(), "3.4".into()),
                "extension postgis: 3.4 instead of 3.3.2",
            ),
            (|copy| _ = copy.objects.insert("triggers".into(), 0), "number of triggers: 0 instead of 1"),
        ];
        for (change, expected) in cases {
            assert_eq!(told(change), [expected]);
        }
    }
}
