//! Reading XML from servers that nobody trusts: no entities but the five of XML, bounded depth and length, names by
//! namespace. A document type says nothing here: it is not fetched, and what it declares of elements is passed over.

use quick_xml::events::Event;
use quick_xml::name::ResolveResult;
use quick_xml::reader::NsReader;

/// Deepest element. Capabilities nest layers a dozen deep at most.
const MAX_DEPTH: usize = 64;

/// Most parts of a document that are read.
const MAX_EVENTS: usize = 2_000_000;

/// Longest text of one element that is kept, in bytes.
const MAX_TEXT_BYTES: usize = 4096;

/// An element that is open.
#[derive(Clone, Debug, Default)]
pub struct Element {
    /// Its local name.
    pub name: String,
    /// Its namespace; empty if it has none.
    pub namespace: String,
    /// Its attributes, without namespaces.
    pub attributes: Vec<(String, String)>,
    /// Its own text so far.
    pub text: String,
}

impl Element {
    /// An attribute, by its local name.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Walks through a document: `ended` sees every element when it ends, with all that are open around it, outermost first.
pub fn walk(text: &str, mut ended: impl FnMut(&[Element])) -> Result<(), String> {
    let broken = |error: &dyn std::fmt::Display| format!("the XML is broken: {error}");
    let mut reader = NsReader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let (mut open, mut seen): (Vec<Element>, bool) = (Vec::new(), false);
    for _ in 0..MAX_EVENTS {
        let (resolved, event) = reader.read_resolved_event().map_err(|error| broken(&error))?;
        match event {
            Event::Start(start) => {
                if open.len() >= MAX_DEPTH {
                    return Err(format!("the XML is more than {MAX_DEPTH} elements deep"));
                }
                let namespace = match resolved {
                    ResolveResult::Bound(namespace) => namespace.as_ref().to_owned(),
                    ResolveResult::Unbound | ResolveResult::Unknown(_) => String::new(),
                };
                let attribute = |attribute: quick_xml::events::attributes::Attribute<'_>| {
                    let value = quick_xml::escape::unescape(&attribute.value).ok()?;
                    Some((attribute.key.local_name().as_ref().to_owned(), value.into_owned()))
                };
                let attributes = start.attributes().flatten().take(MAX_DEPTH).filter_map(attribute).collect();
                let name = start.local_name().as_ref().to_owned();
                open.push(Element { name, namespace, attributes, text: String::new() });
                seen = true;
            }
            Event::End(_) => {
                ended(&open);
                open.pop();
            }
            Event::Text(part) => add(&mut open, &part),
            Event::CData(part) => add(&mut open, &part),
            Event::GeneralRef(reference) => {
                let known = quick_xml::escape::resolve_predefined_entity(&reference).map(str::to_owned);
                let char_ref = || reference.resolve_char_ref().ok().flatten().map(String::from);
                let text = known.or_else(char_ref);
                let text = text.ok_or_else(|| "the XML has an entity that XML does not know".to_owned())?;
                add(&mut open, &text);
            }
            // None of them would be expanded: a document that declares some would be read for something else than it says.
            Event::DocType(declared) if declared.contains("<!ENTITY") => {
                return Err("the XML declares entities of its own: it is not read".to_owned());
            }
            Event::Eof if seen && open.is_empty() => return Ok(()),
            Event::Eof => return Err("the XML ends early, or there is none".to_owned()),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    Err(format!("the XML has more than {MAX_EVENTS} parts"))
}

fn add(open: &mut [Element], part: &str) {
    if let Some(element) = open.last_mut()
        && element.text.len().saturating_add(part.len()) <= MAX_TEXT_BYTES
    {
        element.text.push_str(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(xml: &str) -> Result<Vec<String>, String> {
        let mut texts = Vec::new();
        walk(xml, |open| {
            let own = open.last().unwrap();
            texts.push(format!("{}|{}={}", own.namespace, own.name, own.text.trim()));
        })?;
        Ok(texts)
    }

    #[test]
    fn names_have_their_namespaces_and_texts_their_characters() {
        let found = texts("<a xmlns:x='urn:x'><x:b y='1'>1 &lt; &#50;<![CDATA[<3]]></x:b><c/></a>").unwrap();
        assert_eq!(found, ["urn:x|b=1 < 2<3", "|c=", "|a="]);
    }

    #[test]
    fn bombs_do_not_go_off() {
        let laughs = "<!DOCTYPE l [<!ENTITY a 'ha'><!ENTITY b '&a;&a;'>]><l>&b;</l>";
        assert!(texts(laughs).unwrap_err().contains("declares entities"));
        assert!(texts("<l>&b;</l>").unwrap_err().contains("entity"));
        assert!(texts(&"<a>".repeat(1000)).unwrap_err().contains("deep"));
        assert!(texts("<a><b></a>").unwrap_err().contains("broken"));
        assert!(texts("<a>").unwrap_err().contains("ends early"));
        assert!(texts("").unwrap_err().contains("ends early"));
        let outside = "<!DOCTYPE l [<!ELEMENT l ANY>\n <!ENTITY % e SYSTEM 'file:///etc/passwd'> %e;]><l/>";
        assert!(texts(outside).unwrap_err().contains("declares entities"));
        // What a document type gives elements is not theirs here, and one that never ends is no document.
        let given = "<!DOCTYPE l [<!ATTLIST l b CDATA 'given'>]><l>1</l>";
        walk(given, |open| assert_eq!(open[0].attribute("b"), None)).unwrap();
        assert!(texts("<!DOCTYPE l [<!ELEMENT l ANY><l/>").unwrap_err().contains("broken"));
    }

    #[test]
    fn a_document_type_is_passed_over() {
        // As WMS 1.1.1 has it: by MapServer, by GeoServer with its tiles, and by reference alone.
        for declared in [
            r#"<!DOCTYPE a SYSTEM "http://schemas.opengis.net/wms/1.1.1/WMS_MS_Capabilities.dtd"
 [
 <!ELEMENT VendorSpecificCapabilities EMPTY>
 ]>  <!-- end of DOCTYPE declaration -->

"#,
            r#"<!DOCTYPE a SYSTEM "http://h/WMS_MS_Capabilities.dtd"[
<!ELEMENT VendorSpecificCapabilities (TileSet*) >
<!ELEMENT TileSet (SRS, BoundingBox?, Resolutions, Width, Height, Format, Layers*, Styles*) >
<!ATTLIST TileSet kind (a | b) "a" note CDATA "]>"><!-- [ ]> -->
<!ELEMENT Resolutions (#PCDATA) >
]>"#,
            "<!DOCTYPE a SYSTEM 'http://example.org/a.dtd'>",
        ] {
            let document = format!("<?xml version='1.0' standalone=\"no\" ?>\n{declared}<a>1</a>\n");
            assert_eq!(texts(&document).unwrap(), ["|a=1"], "{declared}");
        }
    }
}
