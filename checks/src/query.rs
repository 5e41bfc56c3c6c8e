//! What can be said of a query in PromQL without asking anybody: that it cannot mean what it is meant to. It is no parser of the
//! language; where it is not certain it says nothing.

use std::collections::BTreeSet;

use crate::template::Template;

/// Words of PromQL that make one series of many. `histogram_quantile` keeps all labels but `le`, and does not count.
const AGGREGATIONS: [&str; 10] =
    ["sum", "avg", "min", "max", "count", "group", "quantile", "stddev", "stdvar", "scalar"];

/// Words that say which series belong together, or that one side is of another time.
const MATCHINGS: [&str; 3] = ["on", "ignoring", "offset"];

/// Words whose parentheses hold labels.
const LABELLED: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Words of PromQL that stand where metrics do.
const NO_METRICS: [&str; 9] = ["or", "and", "unless", "by", "without", "bool", "inf", "nan", "atan2"];

/// Says why a query cannot mean what it is meant to, as far as that is seen without asking. `at_most` says that its number is
/// well where it is small.
pub fn lint(query: &str, at_most: bool) -> Result<(), String> {
    if query.trim().is_empty() || query.len() > 4_096 {
        return Err("`query` is empty, or longer than 4096 bytes".to_owned());
    }
    let bare = bare(query)?;
    let lower = bare.to_ascii_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !is_word(c)).filter(|word| !word.is_empty()).collect();
    let always_answers = words.windows(2).any(|pair| matches!(pair, ["or", "vector"]))
        || words.windows(3).any(|words| matches!(words, ["or", "on", "vector"]));
    if let Some(comparison) = comparison(&lower).filter(|_| !always_answers) {
        return Err(format!(
            "`query` compares with `{comparison}`: where the comparison is false Prometheus answers nothing, which is \
             also what it answers without data. Leave it out, and say `max` or `min`; or count with `count(…) or vector(0)`"
        ));
    }
    let nodes = nodes(&mut bare.as_str(), 0)?;
    divisions(&nodes, query)?;
    match at_most && nothing_is_zero(&nodes) {
        true => Err("`query` ends a division with `or vector(0)`: without any data, as where nobody exports any, it is 0, \
                     which passes. Say it of the numerator only: `(sum(…) or vector(0)) / sum(…)`"
            .to_owned()),
        false => Ok(()),
    }
}

/// Words of PromQL that make of a counter what happened lately, or ask only whether it is there.
const OF_COUNTERS: [&str; 12] = [
    "rate",
    "irate",
    "increase",
    "delta",
    "idelta",
    "deriv",
    "resets",
    "changes",
    "count",
    "absent",
    "absent_over_time",
    "present_over_time",
];

/// What by its name is a counter, and is read by a query as it stands: since its exporter was started, which may be months. None
/// where it takes its growth, or the difference to another time, and where the query cannot be read.
pub fn counter_as_it_stands(query: &str) -> Option<String> {
    let bare = bare(query).ok()?;
    let nodes = nodes(&mut bare.as_str(), 0).ok()?;
    let found = (!mentions(&nodes, &["offset"])).then(|| standing(&nodes)).flatten();
    found.map(str::to_owned)
}

fn standing<'a>(all: &[Node<'a>]) -> Option<&'a str> {
    // A name with a colon is that of a rule, which has made something of its counters.
    let is_counter =
        |name: &str| !name.contains(':') && (name.ends_with("_total") || name.ends_with("_bucket"));
    let own = metrics_of(all).find(|name| is_counter(name));
    own.or_else(|| {
        all.iter().find_map(|node| match node {
            Node::Group { called, inside } if !OF_COUNTERS.contains(called) && !LABELLED.contains(called) => {
                standing(inside)
            }
            _ => None,
        })
    })
}

/// Whether a query asks for a quantile of buckets that it has added up without their label `le`: there is no answer to that, or
/// none that is a number.
pub fn loses_buckets(query: &str) -> bool {
    let read = |query: &str| {
        let bare = bare(query).ok()?;
        Some(lost(&nodes(&mut bare.as_str(), 0).ok()?, false))
    };
    read(query).unwrap_or(false)
}

/// Whether buckets lose their label in these nodes; `asked` says that a quantile of them is asked for.
fn lost(all: &[Node<'_>], asked: bool) -> bool {
    all.iter().enumerate().any(|(at, node)| {
        let Node::Group { called, inside } = node else { return false };
        if asked && AGGREGATIONS.contains(called) && has_buckets(inside) && !keeps_le(all, at) {
            return true;
        }
        lost(inside, asked || *called == "histogram_quantile")
    })
}

fn has_buckets(all: &[Node<'_>]) -> bool {
    metrics_of(all).any(|name| name.ends_with("_bucket"))
        || all.iter().any(|node| matches!(node, Node::Group { inside, .. } if has_buckets(inside)))
}

/// Whether the aggregation whose parentheses stand at `at` keeps the label `le`: before them or behind them it says by what.
fn keeps_le(all: &[Node<'_>], at: usize) -> bool {
    let labels = |word: Option<usize>, group: Option<usize>| {
        let (Some(Node::Word(word)), Some(Node::Group { inside, .. })) =
            (word.and_then(|at| all.get(at)), group.and_then(|at| all.get(at)))
        else {
            return None;
        };
        let named = inside.iter().any(|node| node.is("le"));
        match *word {
            "by" => Some(named),
            "without" => Some(!named),
            _ => None,
        }
    };
    let before = labels(at.checked_sub(2), at.checked_sub(1));
    let behind = labels(at.checked_add(1), at.checked_add(2));
    before.or(behind).unwrap_or(false)
}

/// The metrics that stand in these nodes themselves, not in parentheses in them.
fn metrics_of<'n, 'a>(all: &'n [Node<'a>]) -> impl Iterator<Item = &'a str> + use<'n, 'a> {
    let own = all.iter().enumerate().filter_map(|(at, node)| match node {
        Node::Word(name) => Some((at, *name)),
        _ => None,
    });
    own.filter(|(at, name)| is_metric(all, *at, name)).map(|(_, name)| name)
}

/// Whether a word is a metric: neither a number, nor called, nor of the language.
fn is_metric(all: &[Node<'_>], at: usize, name: &str) -> bool {
    let number = name.starts_with(|c: char| c.is_ascii_digit());
    let is_called = matches!(all.get(at.saturating_add(1)), Some(Node::Group { .. }));
    let of_language = NO_METRICS.contains(&name) || MATCHINGS.contains(&name) || LABELLED.contains(&name);
    // `offset 1d` names a time.
    let is_time = at.checked_sub(1).and_then(|at| all.get(at)).is_some_and(|node| node.is("offset"));
    !number && !is_called && !of_language && !AGGREGATIONS.contains(&name) && !is_time
}

/// Whether a query says of which slot its number is to be.
pub fn names_slot(query: &str) -> bool {
    Template::parse(query).is_ok_and(|template| template.names().any(|name| name == "slot"))
}

/// The longest range that a query looks back over, in milliseconds.
pub fn longest_range_ms(query: &str) -> Option<u64> {
    let mut longest = None;
    let (mut quote, mut range) = (None, None::<String>);
    let mut chars = query.chars();
    while let Some(c) = chars.next() {
        match (c, quote, &mut range) {
            ('\\', Some('"' | '\''), _) => {
                chars.next();
            }
            (c, Some(open), _) if c == open => quote = None,
            (_, Some(_), _) => {}
            ('"' | '\'' | '`', None, _) => quote = Some(c),
            ('#', None, _) => {
                chars.by_ref().find(|c| *c == '\n');
            }
            ('[', None, _) => range = Some(String::new()),
            (']', None, Some(text)) => {
                longest = longest.max(duration_ms(text));
                range = None;
            }
            (c, None, Some(text)) => text.push(c),
            _ => {}
        }
    }
    longest
}

/// A duration as PromQL has it, as `5m` or `1h30m`; of a subquery, the one before its resolution.
fn duration_ms(text: &str) -> Option<u64> {
    let mut rest = text.split(':').next().unwrap_or_default().trim();
    let mut sum: Option<u64> = None;
    while !rest.is_empty() {
        let (number, after) = rest.split_at_checked(rest.find(|c: char| !c.is_ascii_digit())?)?;
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            "y" => 31_536_000_000,
            _ => return None,
        };
        let part = number.parse::<u64>().ok()?.saturating_mul(unit_ms);
        sum = Some(sum.unwrap_or_default().saturating_add(part));
        rest = after;
    }
    sum
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// A comparison that leaves series out. One with `bool` gives 0 or 1.
fn comparison(bare: &str) -> Option<&'static str> {
    let signs = ["==", "!=", ">=", "<=", ">", "<"];
    let mut rest = bare;
    while let Some(at) = rest.find(['=', '!', '<', '>']) {
        let found = rest.get(at..)?;
        let sign = signs.into_iter().find(|sign| found.starts_with(sign));
        rest = found.get(sign.map_or(1, str::len)..)?;
        if sign.is_some() && !rest.trim_start().starts_with("bool") {
            return sign;
        }
    }
    None
}

/// A query by its parentheses.
#[derive(Debug)]
enum Node<'a> {
    /// A name, a number, or a word of the language.
    Word(&'a str),
    /// Any other character.
    Sign(char),
    /// What stands in parentheses, and what is called with it: `sum` also of `sum by (job) (…)`.
    Group { called: &'a str, inside: Vec<Node<'a>> },
}

/// Deepest parentheses that are looked into: people write half a dozen.
const DEEPEST: usize = 32;

/// Signs that bind less than a division, and those that bind as much: on its right it ends at either.
const BIND_LESS: [char; 7] = ['+', '-', '=', '!', '<', '>', ','];
const BIND_ALIKE: [char; 3] = ['*', '/', '%'];
const JOINING: [&str; 3] = ["or", "and", "unless"];

impl Node<'_> {
    fn is(&self, text: &str) -> bool {
        matches!(self, Self::Word(word) if *word == text)
    }

    fn binds_less(&self) -> bool {
        match self {
            Self::Word(word) => JOINING.contains(word),
            Self::Sign(sign) => BIND_LESS.contains(sign),
            Self::Group { .. } => false,
        }
    }

    fn ends_a_divisor(&self) -> bool {
        self.binds_less() || matches!(self, Self::Sign(sign) if BIND_ALIKE.contains(sign))
    }
}

/// Reads up to the parenthesis that closes what it stands in.
fn nodes<'a>(rest: &mut &'a str, depth: usize) -> Result<Vec<Node<'a>>, String> {
    let mut found = Vec::new();
    while let Some(first) = rest.trim_start().chars().next() {
        *rest = rest.trim_start();
        let end = if is_word(first) { rest.find(|c| !is_word(c)) } else { Some(first.len_utf8()) };
        let (text, after) = rest.split_at(end.unwrap_or(rest.len()));
        *rest = after;
        match first {
            ')' if depth > 0 => return Ok(found),
            ')' => return Err(unclosed()),
            '(' if depth >= DEEPEST => {
                return Err("`query` has too many parentheses in one another".to_owned());
            }
            '(' => {
                let called = called(&found);
                found.push(Node::Group { called, inside: nodes(rest, depth.saturating_add(1))? });
            }
            _ if is_word(first) => found.push(Node::Word(keyword(text))),
            sign => found.push(Node::Sign(sign)),
        }
    }
    match depth {
        0 => Ok(found),
        _ => Err(unclosed()),
    }
}

/// A word of the language as it is written here: there it may have capitals. Functions and metrics may not.
fn keyword(word: &str) -> &str {
    let all = [&AGGREGATIONS[..], &MATCHINGS, &LABELLED, &NO_METRICS];
    all.into_iter().flatten().find(|known| known.eq_ignore_ascii_case(word)).copied().unwrap_or(word)
}

fn unclosed() -> String {
    "`query` has a quote, brace, bracket or parenthesis that is not closed".to_owned()
}

/// What parentheses are called by that open behind these nodes.
fn called<'a>(before: &[Node<'a>]) -> &'a str {
    match before {
        [.., Node::Word(called), Node::Word(labels), Node::Group { .. }] if LABELLED.contains(labels) => {
            called
        }
        [.., Node::Word(called)] => called,
        _ => "",
    }
}

/// Looks at every division in these nodes, and in what stands in parentheses in them.
fn divisions(nodes: &[Node<'_>], query: &str) -> Result<(), String> {
    for (at, node) in nodes.iter().enumerate() {
        match node {
            Node::Group { inside, .. } => divisions(inside, query)?,
            Node::Sign('/') => {
                let (above, below) = sides(nodes, at);
                divided(above, below, query)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// What stands on both sides of a division.
fn sides<'n, 'a>(nodes: &'n [Node<'a>], at: usize) -> (&'n [Node<'a>], &'n [Node<'a>]) {
    let (left, rest) = nodes.split_at(at);
    let right = rest.get(1..).unwrap_or_default();
    let from = left.iter().rposition(Node::binds_less).map_or(0, |at| at.saturating_add(1));
    let to = right.iter().position(Node::ends_a_divisor).unwrap_or(right.len());
    (left.get(from..).unwrap_or_default(), right.get(..to).unwrap_or_default())
}

/// Refuses one metric divided by itself: around the division no `sum` helps any more, so each side needs its own.
fn divided(above: &[Node<'_>], below: &[Node<'_>], query: &str) -> Result<(), String> {
    let (above_metrics, below_metrics) = (metrics(above), metrics(below));
    let both =
        || above_metrics.iter().filter(|metric| below_metrics.iter().any(|other| other.name == metric.name));
    let matched = mentions(above, &MATCHINGS) || mentions(below, &MATCHINGS);
    let one_series = |metrics: &[Metric<'_>], name: &str| {
        metrics.iter().filter(|metric| metric.name == name).all(|metric| metric.one_series)
    };
    let bare = both()
        .find(|metric| !(one_series(&above_metrics, metric.name) && one_series(&below_metrics, metric.name)));
    match bare {
        // The same series of two times, or as a share of themselves: what was meant is not known.
        Some(metric) if !matched && selectors(query, metric.name).len() > 1 => Err(format!(
            "`query` divides `{}` by itself without `sum(…)` on each side: each series is divided by the one with the same \
             labels, so errors by errors, which is 1. Write `sum(rate(…)) / sum(rate(…))`: around the division it is too late",
            metric.name
        )),
        _ => Ok(()),
    }
}

/// What a metric's series are picked by, wherever a query names it: `{code="5"}`, or nothing.
fn selectors<'q>(query: &'q str, metric: &str) -> BTreeSet<&'q str> {
    let mut found = BTreeSet::new();
    let (mut quote, mut at) = (None, 0);
    let mut begun: Option<usize> = None;
    while let Some(c) = query.get(at..).and_then(|rest| rest.chars().next()) {
        let end = at.saturating_add(c.len_utf8());
        match (c, quote) {
            ('\\', Some('"' | '\'')) => {
                at = end.saturating_add(
                    query.get(end..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8),
                );
                continue;
            }
            (c, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'' | '`', None) => quote = Some(c),
            ('}', None) => {
                found.extend(begun.take().and_then(|from| query.get(from..end)));
            }
            (c, None) if is_word(c) => {
                let rest = query.get(at..).unwrap_or_default();
                let word = rest.get(..rest.find(|c| !is_word(c)).unwrap_or(rest.len())).unwrap_or_default();
                at = at.saturating_add(word.len());
                if word == metric && begun.is_none() {
                    let rest = query.get(at..).unwrap_or_default();
                    let behind = rest.trim_start();
                    if behind.starts_with('{') {
                        begun = Some(at.saturating_add(rest.len().saturating_sub(behind.len())));
                    } else {
                        found.insert("");
                    }
                }
                continue;
            }
            _ => {}
        }
        at = end;
    }
    found
}

/// A metric of one side of a division.
struct Metric<'a> {
    name: &'a str,
    /// It is in parentheses that make one series of many.
    one_series: bool,
}

/// The metrics that nodes name: words that are neither numbers nor called, and no labels.
fn metrics<'a>(nodes: &[Node<'a>]) -> Vec<Metric<'a>> {
    let mut found = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        match node {
            Node::Group { called, .. } if LABELLED.contains(called) => {}
            Node::Group { called, inside } => {
                let sums = AGGREGATIONS.contains(called);
                let inner = metrics(inside).into_iter();
                found.extend(inner.map(|metric| Metric { one_series: metric.one_series || sums, ..metric }));
            }
            Node::Word(name) if is_metric(nodes, at, name) => found.push(Metric { name, one_series: false }),
            Node::Word(_) | Node::Sign(_) => {}
        }
    }
    found
}

/// Whether one of these words stands anywhere in the nodes.
fn mentions(nodes: &[Node<'_>], words: &[&str]) -> bool {
    nodes.iter().any(|node| match node {
        Node::Word(word) => words.contains(word),
        Node::Group { inside, .. } => mentions(inside, words),
        Node::Sign(_) => false,
    })
}

/// Whether a division of metrics is 0 where there are none: `… / … or vector(0)`, in these nodes or in parentheses in them.
fn nothing_is_zero(nodes: &[Node<'_>]) -> bool {
    nodes.iter().enumerate().any(|(at, node)| match node {
        Node::Group { inside, .. } => nothing_is_zero(inside),
        Node::Word("or") => {
            let (before, after) = (nodes.get(..at), nodes.get(at.saturating_add(1)..));
            is_zero(after.unwrap_or_default()) && divides_metrics(before.unwrap_or_default())
        }
        _ => false,
    })
}

/// `vector(0)`, perhaps behind `on()`.
fn is_zero(nodes: &[Node<'_>]) -> bool {
    match nodes {
        [Node::Word("on"), Node::Group { .. }, rest @ ..] => is_zero(rest),
        [Node::Word("vector"), Node::Group { inside, .. }, ..] => {
            matches!(inside.as_slice(), [Node::Word(number), ..] if number.chars().all(|c| c == '0'))
        }
        _ => false,
    }
}

/// Whether metrics are divided by metrics anywhere in these nodes.
fn divides_metrics(nodes: &[Node<'_>]) -> bool {
    nodes.iter().enumerate().any(|(at, node)| match node {
        Node::Group { inside, .. } => divides_metrics(inside),
        Node::Sign('/') => {
            let (above, below) = sides(nodes, at);
            !metrics(above).is_empty() && !metrics(below).is_empty()
        }
        _ => false,
    })
}

/// The query without what stands in quotes, braces, brackets and comments.
fn bare(query: &str) -> Result<String, String> {
    let (mut bare, mut quote, mut inside) = (String::new(), None, 0_i32);
    let mut chars = query.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', Some('"' | '\'')) => {
                chars.next();
            }
            (c, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'' | '`', None) => quote = Some(c),
            ('#', None) => {
                chars.by_ref().find(|c| *c == '\n');
            }
            ('{' | '[', None) => inside = inside.saturating_add(1),
            ('}' | ']', None) => inside = inside.saturating_sub(1),
            (c, None) if inside == 0 => bare.push(c),
            _ => {}
        }
    }
    match (quote, inside) {
        (None, 0) => Ok(bare),
        _ => Err(unclosed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_that_cannot_mean_what_they_say_are_explained() {
        let lint = |query: &str| lint(query, true);
        let usual = r#"rate(http_requests_total{status=~"5.."}[5m]) / rate(http_requests_total[5m])"#;
        assert!(lint(usual).unwrap_err().contains("`http_requests_total` by itself without `sum(…)`"));
        assert!(lint(&format!("{usual} > 0.01")).unwrap_err().contains("compares with `>`"));
        let quantile = "histogram_quantile(0.99, rate(http_request_duration_seconds_bucket[5m])) > 2";
        assert!(lint(quantile).unwrap_err().contains("compares"));
        let sound = r#"sum(rate(r_total{code=~"5..",path!="/a>b"}[1m])) / sum(rate(r_total[1m])) # > 1"#;
        assert_eq!(lint(sound), Ok(()));
        for sound in [
            "up{job='a\\'b'} offset 5m",
            "node_filesystem_avail_bytes{mountpoint='/'} / node_filesystem_size_bytes{mountpoint='/'}",
            "max(used_bytes / size_bytes)",
            "increase(errors_total[1m]) / 60",
            "increase(errors_total[1m]) / 60 or vector(0)",
            "queue_length > bool 10",
            "count(up == 0) or vector(0)",
            "rate(r_total[5m]) / rate(r_total[5m] offset 1d)",
            "(rate(a_total[1m]) or vector(0)) / (rate(b_total[1m]) or vector(0))",
            "(sum(rate(e_total{code='5'}[1m])) or vector(0)) / sum(rate(e_total[1m]))",
            "(sum(increase(e_total{code='5'}[1m]) / 60) or vector(0)) / sum(rate(e_total[1m]))",
            "count(up == 0) or on() vector(0)",
            "rate(e_total{code='5'}[5m]) / ignoring(code) rate(e_total[5m])",
            "sum by (path) (rate(e_total{code='5'}[5m])) / sum by (path) (rate(e_total[5m]))",
            "sum(rate(e_total{code='5'}[5m])) by (path) / sum(rate(e_total[5m])) by (path)",
            "1 - sum(rate(e_total{code='2'}[5m])) / sum(rate(e_total[5m]))",
            "sum(a_total) / sum(b_total) + a_total",
            "rate(e_total{code='5'}[5m]) / IGNORING(code) GROUP_LEFT rate(e_total[5m])",
            "SUM BY (path) (rate(e_total{code='5'}[5m])) / Sum(rate(e_total[5m])) by (path)",
            "rate(r_total[5m]) / rate(r_total[5m] OFFSET 1d)",
            "count(up == 0) OR vector(0)",
            "queue_length > BOOL 10",
            // The same series, lately and over an hour.
            "rate(e_total{code='}'}[5m]) / rate(e_total{code='}'}[1h])",
            "avg_over_time(load[5m]) / avg_over_time(load[1h])",
            "clamp_max(sum(rate(e_total{code='5'}[5m])) / clamp_min(sum(rate(e_total[5m])), 1), 1)",
            "label_replace(sum(rate(e_total{code='5'}[5m])), 'a', '$1', 'b', '(.*)') / sum(rate(e_total[5m]))",
            "job:errors:ratio5m{job='site'}",
        ] {
            assert_eq!(lint(sound), Ok(()), "{sound}");
        }
        assert!(lint("vector(7) > 5").is_err());
        assert!(lint("count(up == 0)").unwrap_err().contains("or vector(0)"));
        assert!(lint("a >= bool 1 and b <2").unwrap_err().contains("`<`"));
        let deep = format!("{}a{}", "(".repeat(200), ")".repeat(200));
        for open in ["sum(a{b=\"c\"", "rate(a[5m)", "a{b=\"c}", "", "sum(a", "a)", &deep] {
            assert!(lint(open).is_err(), "{open}");
        }
    }

    #[test]
    fn a_counter_as_it_stands_says_nothing_of_now() {
        for (query, counter) in [
            (
                "sum(http_requests_total{status=~'5..'}) / sum(http_requests_total)",
                Some("http_requests_total"),
            ),
            ("errors_total", Some("errors_total")),
            ("max_over_time(errors_total[5m])", Some("errors_total")),
            ("sum by (le) (latency_bucket)", Some("latency_bucket")),
            ("sum(rate(a_total[1m])) / sum(b_total)", Some("b_total")),
            ("sum(rate(http_requests_total[1m]))", None),
            ("increase(errors_total[1m]) / 60", None),
            ("errors_total - errors_total offset 5m", None),
            ("count(errors_total) or vector(0)", None),
            ("queue_length", None),
            ("sum(up{job='my_total'})", None),
            ("sum(a_total", None),
            ("sum(errors_total) - sum(errors_total OFFSET 5m)", None),
            ("job:errors_total", None),
        ] {
            assert_eq!(counter_as_it_stands(query).as_deref(), counter, "{query}");
        }
    }

    #[test]
    fn a_quantile_needs_its_buckets() {
        for lost in [
            "histogram_quantile(0.99, sum(rate(latency_bucket[1m])))",
            "histogram_quantile(0.99, sum by (job) (rate(latency_bucket[1m])))",
            "1000 * histogram_quantile(0.99, sum(rate(latency_bucket[1m])) by (job, slot))",
            "histogram_quantile(0.99, sum without (le) (rate(latency_bucket[1m])))",
            "histogram_quantile(0.99, SUM(rate(latency_bucket[1m])))",
        ] {
            assert!(loses_buckets(lost), "{lost}");
        }
        for sound in [
            "histogram_quantile(0.99, sum by (le) (rate(latency_bucket[1m])))",
            "histogram_quantile(0.99, sum(rate(latency_bucket{le!='9'}[1m])) by (le, slot))",
            "histogram_quantile(0.99, sum without (instance) (rate(latency_bucket[1m])))",
            "max(histogram_quantile(0.99, sum by (le, slot) (rate(latency_bucket[1m]))))",
            "histogram_quantile(0.99, SUM BY (le) (rate(latency_bucket[1m])))",
            "histogram_quantile(0.99, sum(rate(latency_bucket[1m])) BY (le))",
            "histogram_quantile(0.99, rate(latency_bucket[1m]))",
            // A native histogram has its buckets inside.
            "histogram_quantile(0.99, sum(rate(latency[1m])))",
            "sum(rate(latency_bucket{le='2'}[1m])) / sum(rate(latency_count[1m]))",
        ] {
            assert!(!loses_buckets(sound), "{sound}");
        }
    }

    #[test]
    fn around_a_division_no_sum_helps() {
        for around in [
            "avg(rate(x{code='5'}[5m]) / rate(x[5m]))",
            "sum(rate(x{code='5'}[5m]) / rate(x[5m]))",
            "max by (job) (rate(x{code='5'}[5m]) / rate(x[5m]))",
            "sum(rate(x{code='5'}[5m])) / rate(x[5m])",
            "rate(x{code='5'}[5m]) / sum(rate(x[5m]))",
            "100 * (rate(x{code='5'}[5m]) / rate(x[5m])) + sum(y)",
            "sum(y) - rate(x{code='5'}[5m]) / rate(x[5m])",
            "rate(x {code='5', path=\"{\"}[5m]) / rate(x[5m])",
        ] {
            assert!(lint(around, true).unwrap_err().contains("divides `x` by itself"), "{around}");
        }
    }

    #[test]
    fn without_data_no_share_is_zero() {
        let share = "sum(rate(e_total[1m])) / sum(rate(r_total[1m]))";
        for dead in [
            format!("{share} or vector(0)"),
            format!("({share}) or on() vector(0)"),
            format!("({share} or vector(0)) * 100"),
            format!("100 * {share} or vector(0.0)"),
        ] {
            assert!(lint(&dead, true).unwrap_err().contains("of the numerator only"), "{dead}");
            // Where much is well, nothing is bad.
            assert_eq!(lint(&dead, false), Ok(()), "{dead}");
        }
        assert_eq!(lint(&format!("{share} or vector(1)"), true), Ok(()));
    }

    #[test]
    fn a_query_looks_back_as_far_as_its_longest_range() {
        let back = longest_range_ms;
        assert_eq!(back("sum(rate(a[1m])) / sum(rate(b{c='[9d]'}[1h30m]))"), Some(5_400_000));
        assert_eq!(back("max_over_time(rate(a[30s])[5m:1m]) # [1y]"), Some(300_000));
        assert_eq!(back("a{b=\"\\\"[5m]\"}"), None);
        for odd in ["a[5x]", "a[m]", "a[5]", "a[]"] {
            assert_eq!(back(odd), None, "{odd}");
        }
    }
}
