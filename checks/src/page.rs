//! HTML pages: elements by CSS selector, and the scripts and style sheets that a page needs.

use scraper::{Html, Selector};

/// Most assets of one page that are asked for. A page that needs more fails the check: it was not looked at whole.
pub const MAX_ASSETS: usize = 64;

/// Most elements of a page that is looked at. Reading a page takes time by their number times their depth, so that a few
/// hundred kilobytes of elements within each other would hold an agent up for minutes.
const MAX_ELEMENTS: usize = 8_000;

/// Reads a page, unless it would take too long.
fn document(page: &str) -> Result<Html, String> {
    let begins = |pair: &[u8]| matches!(pair, [b'<', next] if next.is_ascii_alphabetic());
    let elements = page.as_bytes().windows(2).filter(|pair| begins(pair)).count();
    if elements > MAX_ELEMENTS {
        return Err(format!("the page has {elements} elements: at most {MAX_ELEMENTS} are looked at"));
    }
    Ok(Html::parse_document(page))
}

/// Parses a CSS selector.
pub fn selector(text: &str) -> Result<Selector, String> {
    Selector::parse(text).map_err(|error| format!("`{text}` is no CSS selector: {error}"))
}

/// Says whether a page has an element.
pub fn has(page: &str, wanted: &str) -> Result<bool, String> {
    let wanted = selector(wanted)?;
    Ok(document(page)?.select(&wanted).next().is_some())
}

/// The text of the first element that a selector finds, or one of its attributes.
pub fn take(page: &str, wanted: &str, attribute: Option<&str>) -> Result<String, String> {
    let (parsed, document) = (selector(wanted)?, document(page)?);
    let element = document.select(&parsed).next();
    let element = element.ok_or_else(|| format!("the page has no element `{wanted}`"))?;
    match attribute {
        Some(name) => {
            let value = element.value().attr(name).map(str::to_owned);
            value.ok_or_else(|| format!("element `{wanted}` has no attribute `{name}`"))
        }
        None => Ok(element.text().collect::<String>().trim().to_owned()),
    }
}

/// What a page loads: paths of scripts, style sheets and preloaded modules on the same host, each once, in the order of the
/// page. What comes from elsewhere is not the release's and left out.
pub fn assets(page: &str, page_path: &str, host: &str) -> Result<Vec<String>, String> {
    let document = document(page)?;
    let wanted = selector("script[src], link[rel~=stylesheet][href], link[rel~=modulepreload][href]")?;
    let base = selector("base[href]")?;
    let base = document.select(&base).next().and_then(|base| base.value().attr("href"));
    let (base, from_here) = match base.map(|base| (resolve(page_path, base, host), base)) {
        Some((Some(base), _)) => (base, true),
        // What is relative to another host is that host's.
        Some((None, base)) => (page_path.to_owned(), !names_host(base)),
        None => (page_path.to_owned(), true),
    };
    let mut paths: Vec<String> = Vec::new();
    for element in document.select(&wanted) {
        let link = element.value().attr("src").or_else(|| element.value().attr("href")).unwrap_or_default();
        if !from_here && !names_host(link) {
            continue;
        }
        let Some(path) = resolve(&base, link, host) else { continue };
        if !paths.contains(&path) {
            paths.push(path);
        }
        if paths.len() > MAX_ASSETS {
            return Err(format!("the page needs more than {MAX_ASSETS} assets"));
        }
    }
    Ok(paths)
}

/// The path on this host that a link leads to from a path (RFC 3986, 5.2), written as browsers ask for it; `None` if it leads
/// elsewhere.
pub fn resolve(from: &str, link: &str, host: &str) -> Option<String> {
    let link = tidied(link);
    let path = if let Some((scheme, rest)) = scheme(&link) {
        // `data:`, `javascript:` and their like lead to no server.
        let rest = rest.strip_prefix("//").filter(|_| matches!(scheme.as_str(), "http" | "https"));
        on_host(rest?, host)?
    } else if let Some(rest) = link.strip_prefix("//") {
        on_host(rest, host)?
    } else if link.is_empty() {
        return None;
    } else {
        beside(from, &link)
    };
    Some(escaped(&without_dots(&path)))
}

/// Whether a link names the host that it leads to.
fn names_host(link: &str) -> bool {
    let link = tidied(link);
    scheme(&link).map_or(link.as_str(), |(_, rest)| rest).starts_with("//")
}

/// A link as browsers take it: blanks around it, ends of lines within it and its fragment are none of it, and before the query
/// a backslash is a slash.
fn tidied(link: &str) -> String {
    let blank = |c: char| c.is_ascii_control() || c == ' ';
    let link: String =
        link.trim_matches(blank).chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect();
    let link = link.split('#').next().unwrap_or_default();
    match link.split_once('?') {
        Some((path, query)) => format!("{}?{query}", path.replace('\\', "/")),
        None => link.replace('\\', "/"),
    }
}

/// The scheme of a link, in lower case, and what follows its colon. A colon further on is part of a path or of a query.
fn scheme(link: &str) -> Option<(String, &str)> {
    let (scheme, rest) = link.split_once(':')?;
    let sound = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let begins = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    (sound && begins).then(|| (scheme.to_ascii_lowercase(), rest))
}

/// A path that may be relative, seen from another: a query alone is one of the same path.
fn beside(from: &str, link: &str) -> String {
    let from = from.split('?').next().unwrap_or_default();
    match link.chars().next() {
        Some('/') => link.to_owned(),
        Some('?') => format!("{from}{link}"),
        _ => format!("{}/{link}", from.rsplit_once('/').map_or("", |(directory, _)| directory)),
    }
}

fn on_host(rest: &str, host: &str) -> Option<String> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    let same = authority.eq_ignore_ascii_case(host);
    same.then(|| if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
}

fn without_dots(path: &str) -> String {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    // What ends with dots is a directory.
    if path.ends_with("/.") || path.ends_with("/..") {
        parts.push("");
    }
    let path = format!("/{}", parts.join("/"));
    query.map_or(path.clone(), |query| format!("{path}?{query}"))
}

/// A path and its query with what may not stand there escaped, as the URL standard has it for both. What is escaped already
/// stays as it is.
fn escaped(path: &str) -> String {
    let (mut escaped, mut in_query) = (String::new(), false);
    for byte in path.bytes() {
        in_query |= byte == b'?';
        let kept = byte.is_ascii_graphic()
            && !b"\"<>".contains(&byte)
            && if in_query { byte != b'\'' } else { !b"^`{}".contains(&byte) };
        if kept {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_what_it_needs() {
        let page = r#"<!doctype html><html><head>
            <script type="module" src="/assets/app.js"></script><script src='./b.js?v=1'></script>
            <link rel="stylesheet" href="assets/style.css"><link rel="icon" href="/icon.png">
            <link rel="modulepreload" href="//www.example.org/m.js"><script src="https://cdn.example.net/x.js"></script>
            <script src="data:text/javascript,1"></script><script>inline()</script><script src="/assets/app.js"></script>
            </head><body><div id="app"></div></body></html>"#;
        assert_eq!(
            assets(page, "/map/index.html", "www.example.org").unwrap(),
            ["/assets/app.js", "/map/b.js?v=1", "/map/assets/style.css", "/m.js"]
        );
        assert!(has(page, "div#app").unwrap());
        assert!(!has(page, "div#root").unwrap());
        let based = page.replace("<head>", "<head><base href='/other/'>");
        assert!(assets(&based, "/", "h").unwrap().contains(&"/other/b.js?v=1".to_owned()));
        // What is relative to another host is not this one's.
        let away = page.replace("<head>", "<head><base href='https://cdn.example.net/x/'>");
        assert_eq!(assets(&away, "/", "www.example.org").unwrap(), ["/m.js"]);
        // What leads nowhere is no base.
        let odd = page.replace("<head>", "<head><base href='data:x'>");
        assert!(assets(&odd, "/", "www.example.org").unwrap().contains(&"/b.js?v=1".to_owned()));
    }

    #[test]
    fn links_stay_on_the_host() {
        let to = |link: &str| resolve("/a/b?q", link, "h");
        assert_eq!(to("../../../c").as_deref(), Some("/c"));
        assert_eq!(to("HTTPS://H/x?y#z").as_deref(), Some("/x?y"));
        assert_eq!(to("http://h.evil/x"), None);
        assert_eq!(to("http://h@evil/x"), None);
        assert_eq!(to("javascript:alert(1)"), None);
        assert_eq!(to("\\\\evil/x"), None);
        assert_eq!(to("h:x"), None);
        assert_eq!(to(""), None);
        // Where it leads is what its beginning says, not what its query does.
        assert_eq!(to("/sso?back=https://evil/").as_deref(), Some("/sso?back=https://evil/"));
        assert_eq!(to("sso?back=https://evil/").as_deref(), Some("/a/sso?back=https://evil/"));
    }

    #[test]
    fn links_are_asked_for_as_browsers_do() {
        let to = |link: &str| resolve("/a/b?q", link, "h").unwrap();
        for (link, expected) in [
            ("/assets/größe.js", "/assets/gr%C3%B6%C3%9Fe.js"),
            (" my app.js?v=a b\n", "/a/my%20app.js?v=a%20b"),
            ("/gr%C3%B6%C3%9Fe%20.js?q=%22", "/gr%C3%B6%C3%9Fe%20.js?q=%22"),
            ("/<x>`{^}|\"'.js?`{^}'<\">", "/%3Cx%3E%60%7B%5E%7D|%22'.js?`{^}%27%3C%22%3E"),
            ("assets\\app.js?a\\b", "/a/assets/app.js?a\\b"),
            ("http://h/ä", "/%C3%A4"),
            // A query alone is one of the same path.
            ("?page=home", "/a/b?page=home"),
            ("1:2", "/a/1:2"),
            (".", "/a/"),
            ("./x/..", "/a/"),
        ] {
            assert_eq!(to(link), expected, "{link:?}");
            assert!(to(link).parse::<http::Uri>().is_ok(), "{link:?}");
        }
        let page = "<base href='.'><script src='größe.js'></script>";
        assert_eq!(assets(page, "/map/index.html", "h").unwrap(), ["/map/gr%C3%B6%C3%9Fe.js"]);
    }

    #[test]
    fn hostile_pages_do_no_harm() {
        let many: String = (0..100).map(|n| format!("<script src=/{n}.js></script>")).collect();
        assert!(assets(&many, "/", "h").unwrap_err().contains("more than 64"));
        // As deep as it may be, and one deeper.
        let deep = "<div>".repeat(MAX_ELEMENTS);
        assert!(!has(&deep, "div#app").unwrap());
        assert!(has(&format!("{deep}<div>"), "div#app").unwrap_err().contains("at most 8000 are looked at"));
    }
}
