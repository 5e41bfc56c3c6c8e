//! Golden files: what an operator sees, written down and reviewed. A text that differs fails the test and names the
//! first line that does; `UPDATE_GOLDEN=1` writes the files anew, for a person to read before they are kept.

use std::fs;
use std::path::Path;

/// Lines shown before the first difference, so that the case's heading is usually among them.
const CONTEXT: usize = 6;

/// Fails unless `text` is what the golden file of this name holds.
#[track_caller]
pub fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens").join(name);
    let text = format!("{}\n", text.trim_end());
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|update| update == "1") {
        path.parent().map(fs::create_dir_all).transpose().unwrap();
        fs::write(&path, &text).unwrap();
        return;
    }
    let Ok(expected) = fs::read_to_string(&path) else {
        panic!("goldens/{name} is missing; look at the text, then write it with UPDATE_GOLDEN=1:\n{text}");
    };
    if let Some(difference) = first_difference(&expected, &text) {
        panic!("goldens/{name} differs in {difference}\nif this is better, write it with UPDATE_GOLDEN=1");
    }
}

/// The first line that differs, with the lines before it.
fn first_difference(expected: &str, found: &str) -> Option<String> {
    if expected == found {
        return None;
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let heading = old.iter().take(same).rfind(|line| line.starts_with("== "));
    let mut text =
        format!("line {}{}\n", same + 1, heading.map_or(String::new(), |case| format!(", {case}")));
    for line in old.iter().take(same).skip(same.saturating_sub(CONTEXT)) {
        text.push_str(&format!("    {line}\n"));
    }
    text.push_str(&format!("  - {}\n", old.get(same).unwrap_or(&"(the golden ends here)")));
    text.push_str(&format!("  + {}", new.get(same).unwrap_or(&"(the text ends here)")));
    Some(text)
}

/// Many cases in one file: each under its name.
#[derive(Default)]
pub struct Cases(String);

impl Cases {
    /// Adds a case.
    pub fn add(&mut self, name: &str, text: &str) {
        self.0.push_str(&format!("== {name}\n{}\n\n", text.trim_end()));
    }

    /// Compares all of them.
    #[track_caller]
    pub fn check(&self, name: &str) {
        golden(name, &self.0);
    }
}
