//! How HAProxy compares: what one comparison of a condition, `hdr_end(host) -i .example.org`, says of a text that is known.
//! What a file holds, or a converter makes of the text, is not known here.

use std::borrow::Cow;

use regex::RegexBuilder;

/// Largest compiled form of a regular expression, in bytes: those of an haproxy.cfg take some kilobytes.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// What leaves a host name, or a path that needs no decoding, as it is.
const TRANSPARENT: [&str; 6] = ["lower", "upper", "host_only", "url_dec", "field(1,:)", "word(1,:)"];

/// Whether a comparison holds for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fits {
    Never,
    /// It depends on what cannot be seen.
    Perhaps,
    Always,
}

/// By what a value is found in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Equal,
    Begin,
    End,
    Within,
    /// A whole word between these.
    Word(&'static [char]),
    Regex,
    Found,
    /// Lengths, numbers, addresses.
    Other,
}

impl Method {
    fn named(name: &str) -> Self {
        match name {
            "str" => Self::Equal,
            "beg" => Self::Begin,
            "end" => Self::End,
            "sub" => Self::Within,
            "dir" => Self::Word(&['/', '?']),
            "dom" => Self::Word(&['/', '?', '.', ':']),
            "reg" => Self::Regex,
            "found" => Self::Found,
            _ => Self::Other,
        }
    }

    /// Whether a text holds a value, to the letter.
    fn finds(self, value: &str, text: &str) -> Fits {
        let found = match self {
            Self::Equal => text == value,
            Self::Begin => text.starts_with(value),
            Self::End => text.ends_with(value),
            Self::Within => text.contains(value),
            Self::Word(between) => holds_word(text, value, between),
            Self::Regex => return holds_regex(text, value),
            Self::Found => true,
            Self::Other => return Fits::Perhaps,
        };
        if found { Fits::Always } else { Fits::Never }
    }
}

/// Whether a value stands in a text between separators or at its ends. Separators at the ends of the value count for nothing.
fn holds_word(text: &str, value: &str, between: &[char]) -> bool {
    let value = value.trim_matches(between);
    text.match_indices(value).any(|(at, _)| {
        let ends = |near: Option<char>| near.is_none_or(|near| between.contains(&near));
        let (before, after) = (text.get(..at), text.get(at.saturating_add(value.len())..));
        ends(before.and_then(|before| before.chars().next_back()))
            && ends(after.and_then(|after| after.chars().next()))
    })
}

/// HAProxy's expressions can do more than these, and what is not understood may hold.
fn holds_regex(text: &str, expression: &str) -> Fits {
    match RegexBuilder::new(expression).size_limit(MAX_REGEX_BYTES).build() {
        Ok(regex) if regex.is_match(text) => Fits::Always,
        Ok(_) => Fits::Never,
        Err(_) => Fits::Perhaps,
    }
}

/// One comparison: what is looked at, how, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Comparison<'a> {
    /// What is fetched, without its argument and the method in its name: `hdr` of `hdr_beg(host)`.
    pub(super) fetch: &'a str,
    /// Its first argument; empty if it has none.
    pub(super) argument: &'a str,
    /// Whether what is fetched is compared as it is.
    pub(super) is_plain: bool,
    /// Whether values stand in a file.
    pub(super) from_file: bool,
    /// Those that stand here.
    pub(super) values: Vec<&'a str>,
    method: Method,
    any_case: bool,
}

impl<'a> Comparison<'a> {
    /// Takes the words of a comparison apart, as they stand between braces or behind the name of an `acl`.
    pub(super) fn of(words: &'a [String]) -> Option<Self> {
        let (sample, mut rest) = words.split_first()?;
        let name_end = sample.find(['(', ',']).unwrap_or(sample.len());
        let (name, after) = sample.split_at_checked(name_end)?;
        let (arguments, converters) = match after.strip_prefix('(') {
            Some(within) => within.split_once(')')?,
            None => ("", after),
        };
        let (fetch, mut method) = match name.rsplit_once('_') {
            Some((fetch, "len")) => (fetch, Method::Other),
            Some((fetch, method)) if Method::named(method) != Method::Other => (fetch, Method::named(method)),
            _ => (name, Method::Equal),
        };
        let (mut any_case, mut from_file) = (false, false);
        while let Some((flag, after)) = rest.split_first().filter(|(flag, _)| flag.starts_with('-')) {
            rest = after;
            match flag.as_str() {
                "-i" => any_case = true,
                "-m" => method = Method::named(rest.first().map_or("", String::as_str)),
                "-f" => from_file = true,
                _ => {}
            }
            if matches!(flag.as_str(), "-m" | "-f" | "-u") {
                rest = rest.get(1..).unwrap_or_default();
            }
            if flag == "--" {
                break;
            }
        }
        Some(Self {
            fetch,
            argument: arguments.split(',').next().unwrap_or_default(),
            is_plain: is_transparent(converters),
            from_file,
            values: rest.iter().map(String::as_str).collect(),
            method,
            any_case,
        })
    }

    /// Whether it asks only if there is such a thing.
    pub(super) fn is_presence(&self) -> bool {
        self.method == Method::Found
    }

    /// Whether it holds for a text, if what is fetched is this.
    pub(super) fn fits(&self, text: &str) -> Fits {
        if self.is_presence() {
            return Fits::Always;
        }
        let unseen = if self.from_file { Fits::Perhaps } else { Fits::Never };
        let found = self.values.iter().map(|value| self.finds(value, text));
        found.max().unwrap_or(Fits::Never).max(unseen)
    }

    /// The same for a host name, which may come with a port behind it.
    pub(super) fn fits_host(&self, host: &str) -> Fits {
        let with_port = |port: &str| self.fits(&format!("{host}{port}"));
        let ports = self.values.iter().filter_map(|value| value.get(value.rfind(':')?..));
        let usual = [":80", ":443"].into_iter().filter(|_| self.method == Method::Regex);
        let behind = ports.chain(usual).map(with_port).max().unwrap_or(Fits::Never);
        self.fits(host).max(behind.min(Fits::Perhaps))
    }

    fn finds(&self, value: &str, text: &str) -> Fits {
        let exactly = self.method.finds(value, text);
        if exactly != Fits::Never {
            return exactly;
        }
        let in_any_case = match self.method {
            // What a capital stands for there may be more than a letter: `\D`.
            Method::Regex => self.method.finds(&format!("(?i){value}"), text),
            _ => self.method.finds(&small(value), &small(text)),
        };
        // Without `-i` it is another text, which a visitor would have to type so.
        if self.any_case { in_any_case } else { in_any_case.min(Fits::Perhaps) }
    }
}

fn small(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

/// Whether converters, each with a comma before it, leave a host or a path as it is.
fn is_transparent(converters: &str) -> bool {
    let mut rest = converters;
    while !rest.is_empty() {
        let next = rest.strip_prefix(',');
        let known = next.and_then(|next| TRANSPARENT.iter().find_map(|known| next.strip_prefix(known)));
        match known.filter(|after| after.is_empty() || after.starts_with(',')) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::Fits::{Always, Never, Perhaps};
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn hosts_are_compared_as_haproxy_does() {
        for (comparison, expected) in [
            ("hdr(host) www.example.org", Always),
            ("hdr(host) -i shop.example.org WWW.Example.org", Always),
            ("hdr(host) WWW.Example.org", Perhaps),
            ("hdr(host) -i shop.example.org", Never),
            ("req.hdr(host),lower,field(1,:) -m str www.example.org", Always),
            ("hdr(host) -i www.example.org:8443", Perhaps),
            ("hdr(host) -i shop.example.org:8443", Never),
            ("hdr_beg(host) -i www.", Always),
            ("hdr_beg(host) -i shop.", Never),
            ("hdr(host) -m beg www.", Always),
            ("hdr(host) -m beg -i WWW.", Always),
            ("hdr_end(host) -i example.org", Always),
            ("hdr_end(host) -i example.com", Never),
            ("hdr_end(host) :8443", Perhaps),
            ("hdr_dom(host) -i example.org", Always),
            ("hdr_dom(host) .example.", Always),
            ("hdr_dom(host) exam", Never),
            ("hdr_dir(host) www.example.org", Always),
            ("hdr_dir(host) www", Never),
            ("hdr_sub(host) exam", Always),
            ("hdr_reg(host) ^www", Always),
            ("hdr_reg(host) -i ^WWW\\.", Always),
            ("hdr_reg(host) ^(shop|blog)\\.example\\.org$", Never),
            ("hdr_reg(host) ^www\\.example\\.org:[0-9]+$", Perhaps),
            ("hdr_reg(host) ^(?!shop)", Perhaps),
            ("hdr(host) -m reg -i \\.ORG$", Always),
            ("hdr(host) -f /etc/haproxy/hosts.lst", Perhaps),
            ("hdr(host) -i -f /etc/haproxy/hosts.lst -- www.example.org", Always),
            ("hdr(host) -m found", Always),
            ("hdr_len(host) gt 3", Perhaps),
            ("hdr(host) -m len 15", Perhaps),
            ("ssl_fc_sni -i www.example.org", Always),
            ("ssl_fc_sni_end -i .example.com", Never),
        ] {
            let words = words(comparison);
            let found = Comparison::of(&words).unwrap();
            assert_eq!(found.fits_host("www.example.org"), expected, "{comparison}: {found:?}");
            assert!(found.is_plain, "{comparison}");
        }
        for made in
            ["hdr(host),field(1,.) www", "req.hdr(host),lower,map(/x.map) be_x", "hdr(host),lowered x"]
        {
            assert!(!Comparison::of(&words(made)).unwrap().is_plain, "{made}");
        }
        let of = words("hdr_beg(Host,-1) www.");
        let found = Comparison::of(&of).unwrap();
        assert_eq!((found.fetch, found.argument), ("hdr", "Host"));
        assert_eq!(Comparison::of(&[]), None);
        assert_eq!(Comparison::of(&words("hdr(host")), None);
    }

    /// Whatever stands in a file: no panic, and no expression that takes all memory.
    #[test]
    fn anything_is_taken_apart() {
        for text in [
            "-",
            "hdr(",
            "hdr) -m",
            "x -f",
            "x -u",
            "_ _",
            "hdr_reg(host) ((((((((((a{999}){999}){999}",
            "hdr_dom(host) ...",
            "hdr_dom(host) é",
            "hdr(host) :",
            "hdr_reg(host) (?i",
            "hdr(host) -- -m",
        ] {
            let words = words(text);
            if let Some(found) = Comparison::of(&words) {
                found.fits_host("é.example.org");
                found.fits("");
            }
        }
    }
}
