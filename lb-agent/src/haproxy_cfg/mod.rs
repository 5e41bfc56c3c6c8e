//! A small, tolerant reader of HAProxy configuration files: sections, words, places, and what a section inherits from
//! its `defaults`. It knows no keyword's meaning and refuses nothing: whether a file is right is for `haproxy -c`.

mod words;

use std::fmt;
use std::sync::Arc;

use words::words;

/// Largest configuration that is read, all files together: a hundred times a large one.
pub const MAX_BYTES: u64 = 4 << 20;

/// Every word that begins a section, up to HAProxy 3.2.
const SECTIONS: &[&str] = &[
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "ring",
    "peers",
    "resolvers",
    "userlist",
    "mailers",
    "cache",
    "program",
    "http-errors",
    "fcgi-app",
    "log-forward",
    "log-profile",
    "crt-store",
    "traces",
    "acme",
];

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    file: Arc<str>,
    line: usize,
    /// Within `.if`: whether it counts is known to HAProxy alone.
    conditional: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let within = if self.conditional { " (within `.if`)" } else { "" };
        write!(f, "{}:{}{within}", self.file, self.line)
    }
}

/// A line with at least one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it stands.
    pub place: Place,
    words: Vec<String>,
}

impl Line {
    /// Its words.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// One word; empty if there are not so many.
    pub fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    /// Whether it begins with these words.
    pub fn begins(&self, with: &[&str]) -> bool {
        with.iter().enumerate().all(|(index, word)| self.word(index) == *word)
    }

    /// The word after this one.
    pub fn after(&self, word: &str) -> Option<&str> {
        let at = self.words.iter().position(|known| known == word)?;
        self.words.get(at.saturating_add(1)).map(String::as_str)
    }

    /// Whether one of its words is this one.
    pub fn has(&self, word: &str) -> bool {
        self.words.iter().any(|known| known == word)
    }

    /// Whether it holds this text anywhere, in any case.
    pub fn holds(&self, text: &str) -> bool {
        let text = text.to_ascii_lowercase();
        self.words.iter().any(|word| word.to_ascii_lowercase().contains(&text))
    }
}

/// A section with its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Where its first line stands.
    pub place: Place,
    /// `global`, `defaults`, `frontend` ...
    pub kind: String,
    /// Its name; empty if it has none.
    pub name: String,
    /// Its lines, without the first.
    pub lines: Vec<Line>,
    /// The `defaults` it inherits from, which stands before it.
    inherits: Option<usize>,
}

impl Section {
    /// As people name it: `frontend fe`.
    pub fn title(&self) -> String {
        if self.name.is_empty() { self.kind.clone() } else { format!("{} {}", self.kind, self.name) }
    }

    /// Its own lines that begin with these words.
    pub fn own<'a>(&'a self, with: &'a [&'a str]) -> impl DoubleEndedIterator<Item = &'a Line> {
        self.lines.iter().filter(move |line| line.begins(with))
    }
}

/// How an option stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting<'a> {
    /// Set here.
    On(&'a Place),
    /// Unset here by `no option`.
    Off(&'a Place),
    /// Nowhere.
    Absent,
}

/// Configuration files, read in HAProxy's order as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HaproxyConfig {
    sections: Vec<Section>,
}

impl HaproxyConfig {
    /// Reads files, each with the name by which its places are told.
    pub fn parse<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut config = Self::default();
        for (name, text) in files {
            let file: Arc<str> = Arc::from(name);
            let mut depth = 0usize;
            for (index, text) in text.lines().enumerate() {
                let words = words(text);
                let Some(first) = words.first().map(String::as_str) else { continue };
                match first {
                    ".if" => depth = depth.saturating_add(1),
                    ".endif" => depth = depth.saturating_sub(1),
                    _ if first.starts_with('.') => {}
                    _ => {
                        let (line, conditional) = (index.saturating_add(1), depth > 0);
                        config.take(Line {
                            place: Place { file: Arc::clone(&file), line, conditional },
                            words,
                        });
                    }
                }
            }
        }
        config
    }

    /// A line begins a section or belongs to the one that was begun. What stands before the first section is nothing.
    fn take(&mut self, line: Line) {
        if !SECTIONS.contains(&line.word(0)) {
            if let Some(section) = self.sections.last_mut() {
                section.lines.push(line);
            }
            return;
        }
        let kind = line.word(0).to_owned();
        let name = Some(line.word(1)).filter(|name| *name != "from").unwrap_or_default().to_owned();
        let inherits = self.inherited(&kind, line.after("from"));
        self.sections.push(Section { place: line.place, kind, name, lines: Vec::new(), inherits });
    }

    /// The `defaults` of a new section: the one it names, else the last one. A `defaults` inherits only what it names.
    fn inherited(&self, kind: &str, from: Option<&str>) -> Option<usize> {
        let known = |named: &dyn Fn(&Section) -> bool| {
            self.sections.iter().rposition(|section| section.kind == "defaults" && named(section))
        };
        match (kind, from) {
            ("defaults" | "frontend" | "backend" | "listen", Some(from)) => {
                known(&|section| section.name == from)
            }
            ("frontend" | "backend" | "listen", None) => known(&|_| true),
            _ => None,
        }
    }

    /// Every section of one of these kinds.
    pub fn sections<'a>(&'a self, kinds: &'a [&'a str]) -> impl Iterator<Item = &'a Section> {
        self.sections.iter().filter(|section| kinds.contains(&section.kind.as_str()))
    }

    /// The backend of this name, which may be a `listen`.
    pub fn backend(&self, name: &str) -> Option<&Section> {
        self.sections(&["backend", "listen"]).find(|section| section.name == name)
    }

    /// The lines of `global` that begin with these words.
    pub fn global<'a>(&'a self, with: &'a [&'a str]) -> impl Iterator<Item = &'a Line> {
        self.sections(&["global"]).flat_map(|section| &section.lines).filter(move |line| line.begins(with))
    }

    /// A section, then what it inherits from, nearest first.
    pub fn chain<'a>(&'a self, section: &'a Section) -> Vec<&'a Section> {
        let mut chain = vec![section];
        let mut next = section.inherits;
        // Each stands before the one that inherits it, so there is an end.
        while let Some(inherited) = next.and_then(|index| self.sections.get(index)) {
            chain.push(inherited);
            next = inherited.inherits;
        }
        chain
    }

    /// The lines that HAProxy goes by in a section, in its order: those of named `defaults` first. Each comes with the section in
    /// which it stands, whose `acl` lines alone it can name.
    pub fn rules<'a>(&'a self, section: &'a Section) -> Vec<(&'a Section, &'a Line)> {
        let of = |home: &'a Section| home.lines.iter().map(move |line| (home, line));
        self.chain(section).into_iter().rev().flat_map(of).collect()
    }

    /// The line that is in effect in a section for a keyword that may stand once: the last one of the nearest section.
    pub fn in_effect<'a>(&'a self, section: &'a Section, with: &[&str]) -> Option<&'a Line> {
        self.last_of(section, &[with])
    }

    /// The same for a setting that several keywords set: the last of any of them counts.
    pub fn last_of<'a>(&'a self, section: &'a Section, any: &[&[&str]]) -> Option<&'a Line> {
        let sets = |line: &Line| any.iter().any(|with| line.begins(with));
        let nearest = |section: &'a Section| section.lines.iter().rev().find(|line| sets(line));
        self.chain(section).into_iter().find_map(nearest)
    }

    /// Every line that counts in a section for a keyword that may stand several times, its own first.
    pub fn all_in_effect<'a>(&'a self, section: &'a Section, with: &'a [&'a str]) -> Vec<&'a Line> {
        self.chain(section).into_iter().flat_map(|section| section.own(with)).collect()
    }

    /// The same for one that `no KEYWORD` takes back with all that stand before it, in HAProxy's order.
    pub fn not_taken_back<'a>(&'a self, section: &'a Section, keyword: &str) -> Vec<&'a Line> {
        not_taken_back(self.rules(section).into_iter().map(|(_, line)| line), keyword)
    }

    /// The same of `global`.
    pub fn global_not_taken_back(&self, keyword: &str) -> Vec<&Line> {
        not_taken_back(self.sections(&["global"]).flat_map(|section| &section.lines), keyword)
    }

    /// How `option NAME` stands in a section.
    pub fn option<'a>(&'a self, section: &'a Section, name: &str) -> Setting<'a> {
        for section in self.chain(section) {
            for line in section.lines.iter().rev() {
                if line.begins(&["option", name]) {
                    return Setting::On(&line.place);
                }
                if line.begins(&["no", "option", name]) {
                    return Setting::Off(&line.place);
                }
            }
        }
        Setting::Absent
    }

    /// Where a line is best put that is for a section and all that are like it: its `defaults`, else itself.
    pub fn home_of<'a>(&'a self, section: &'a Section) -> &'a Section {
        section.inherits.and_then(|index| self.sections.get(index)).unwrap_or(section)
    }
}

fn not_taken_back<'a>(lines: impl Iterator<Item = &'a Line>, keyword: &str) -> Vec<&'a Line> {
    let mut found = Vec::new();
    for line in lines {
        if line.begins(&["no", keyword]) {
            found.clear();
        } else if line.word(0) == keyword {
            found.push(line);
        }
    }
    found
}

/// A length of time as HAProxy writes it, in microseconds; a bare number counts in milliseconds.
pub fn time_us(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let factor: u64 = match unit {
        "us" => 1,
        "" | "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLE: &str = "\
stray line before everything
global
  maxconn 10
defaults base
  timeout client 5s
  option redispatch
defaults
  option idle-close-on-response
frontend fe
  bind :80
  no option idle-close-on-response
backend old from base
  no option redispatch
  option redispatch
defaults more from base
  timeout client 6s
.if feature(X)
listen both
  timeout client 7s
.endif
backend last
";

    fn sample() -> HaproxyConfig {
        HaproxyConfig::parse([("a.cfg", SAMPLE), ("b.cfg", "  server s1 1.2.3.4:80\nbackend there\n")])
    }

    #[test]
    fn sections_inherit_from_the_defaults_they_name_or_else_from_the_last() {
        let config = sample();
        let option = |name: &str, option: &str| {
            let section = config.sections.iter().find(|section| section.name == name).unwrap();
            match config.option(section, option) {
                Setting::On(place) => format!("on {place}"),
                Setting::Off(place) => format!("off {place}"),
                Setting::Absent => "absent".to_owned(),
            }
        };
        assert_eq!(option("fe", "idle-close-on-response"), "off a.cfg:11");
        assert_eq!(option("fe", "redispatch"), "absent");
        assert_eq!(option("old", "redispatch"), "on a.cfg:14");
        assert_eq!(option("old", "idle-close-on-response"), "absent");
        assert_eq!(option("last", "redispatch"), "on a.cfg:6");
        assert_eq!(option("there", "redispatch"), "on a.cfg:6");
        let timeout = |name: &str| {
            let line = config.in_effect(config.backend(name).unwrap(), &["timeout", "client"]).unwrap();
            format!("{} {}", line.word(2), line.place)
        };
        assert_eq!(timeout("last"), "6s a.cfg:16");
        assert_eq!(timeout("old"), "5s a.cfg:5");
        assert_eq!(timeout("both"), "7s a.cfg:19 (within `.if`)");
    }

    #[test]
    fn files_go_on_where_the_one_before_ended() {
        let config = sample();
        let last = config.backend("last").unwrap();
        assert_eq!(last.own(&["server"]).map(|line| line.place.to_string()).collect::<Vec<_>>(), ["b.cfg:1"]);
        assert_eq!(config.global(&["maxconn"]).map(|line| line.word(1)).collect::<Vec<_>>(), ["10"]);
    }

    #[test]
    fn times() {
        for (text, us) in [
            ("5", Some(5_000)),
            ("5ms", Some(5_000)),
            ("7us", Some(7)),
            ("2m", Some(120_000_000)),
            ("1h", Some(3_600_000_000)),
            ("", None),
            ("x", None),
            ("5x", None),
            ("99999999999999999999d", None),
            ("18446744073709551615d", None),
            ("${T}", None),
        ] {
            assert_eq!(time_us(text), us, "{text:?}");
        }
    }

    proptest! {
        /// Whatever stands in a file: no panic, every line in one section at most, every chain has an end.
        #[test]
        fn anything_can_be_read(text in "(global|defaults|backend|from|\\.if|\\.endif|option|no|[ \n\t\"'\\\\#a-z$])*", other in "\\PC*") {
            let config = HaproxyConfig::parse([("a", text.as_str()), ("b", other.as_str())]);
            let lines: usize = config.sections.iter().map(|section| section.lines.len() + 1).sum();
            prop_assert!(lines <= text.lines().count() + other.lines().count() + 1);
            for section in &config.sections {
                prop_assert!(config.chain(section).len() <= config.sections.len());
                config.option(section, "x");
                time_us(section.place.to_string().as_str());
            }
        }
    }
}
