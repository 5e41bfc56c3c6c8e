//! Map services of the OGC: WFS 1.1.0 and 2.0.0, WMS 1.1.1 and 1.3.0. What to ask, and what answers say. A service reports
//! failures with status 200 and an exception report: these are understood.

use std::borrow::Cow;

use pointsman_core::several;

use crate::answer::Answer;
use crate::encoding;
use crate::template::percent_encoded;
use crate::xml::{self, Element};

/// Most layers that are read of one service.
const MAX_LAYERS: usize = 20_000;

/// Most boxes of one layer that are looked through for one in a system that it is offered in.
const MAX_BOXES: usize = 100;

/// Formats of maps that are known by their first bytes, the one that is asked for where several are offered first.
const MAP_FORMATS: [&str; 6] =
    ["image/png", "image/jpeg", "image/gif", "image/webp", "image/tiff", "image/svg+xml"];

/// Most formats that are read of one service.
const MAX_FORMATS: usize = 100;

/// Width and height of the map that is asked for, in pixels: enough to be an image.
const MAP_PIXELS: u32 = 64;

/// Which service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Features.
    Wfs,
    /// Maps.
    Wms,
}

impl Service {
    /// As requests name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wfs => "WFS",
            Self::Wms => "WMS",
        }
    }
}

/// A check of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ows {
    /// Which service.
    pub service: Service,
    /// Its version.
    pub version: String,
    /// Its path, perhaps with a query.
    pub path: String,
    /// Layers, or types of features, that its capabilities must name.
    pub layers: Vec<String>,
    /// Also ask for one feature of the first layer.
    pub get_feature: bool,
    /// No feature is an answer, too.
    pub may_be_empty: bool,
    /// Also ask for a map of the first layer.
    pub get_map: bool,
}

/// The edges of a box: the least of both axes, then the greatest. In degrees, longitude first, they are west, south, east,
/// north.
type Edges = [f64; 4];

/// How the OGC's namespaces begin.
const NAMESPACES: &str = "http://www.opengis.net/";

/// The whole world.
const WORLD: Edges = [-180.0, -90.0, 180.0, 90.0];

/// What capabilities say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Capabilities {
    /// Layers, or types of features.
    pub layers: Vec<String>,
    /// What they call the layer that features and a map are asked of.
    asked: Option<String>,
    /// Where it lies, if they say so: the one that is called exactly so, or else one that may be meant.
    place: Option<MapPlace>,
    place_of_meant: Option<MapPlace>,
    /// What maps may be asked for as.
    formats: Vec<String>,
}

impl Capabilities {
    /// The layer that is meant by a name. In a service of one workspace GeoServer leaves out its prefix, and takes requests
    /// with it; elsewhere whoever leaves it out means the only layer of that name.
    fn meant(&self, wanted: &str) -> Result<Option<&str>, String> {
        if let Some(exactly) = self.layers.iter().find(|layer| *layer == wanted) {
            return Ok(Some(exactly));
        }
        let mut meant = self.layers.iter().filter(|layer| is_meant(wanted, layer));
        match (meant.next(), meant.next()) {
            (Some(one), Some(other)) => {
                Err(format!("layer `{wanted}` may be `{one}` or `{other}`: name it with its prefix"))
            }
            (one, _) => Ok(one.map(String::as_str)),
        }
    }

    /// The format that a map is asked for in.
    fn map_format(&self) -> &str {
        let kind = |format: &str| format.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let offered = |wanted: &&str| self.formats.iter().find(|format| kind(format) == **wanted);
        MAP_FORMATS.iter().find_map(offered).map_or("image/png", String::as_str)
    }
}

/// Whether a name means a layer that is called otherwise: one of them has no prefix.
fn is_meant(wanted: &str, layer: &str) -> bool {
    match (wanted.split_once(':'), layer.split_once(':')) {
        (Some((_, name)), None) => name == layer,
        (None, Some((_, name))) => name == wanted,
        _ => false,
    }
}

/// A system of coordinates that a layer is offered in, and the box of a map in it.
#[derive(Clone, Debug, PartialEq)]
struct MapPlace {
    system: String,
    edges: Edges,
}

/// What capabilities say of one layer itself; it has of those around it what it does not say.
#[derive(Clone, Debug, Default)]
struct Layer {
    /// How deep in the document what it says stands.
    depth: usize,
    name: Option<String>,
    /// The systems of coordinates that it is offered in.
    systems: Vec<String>,
    /// Where it lies, in degrees.
    degrees: Option<Edges>,
    /// Where it lies, in systems of coordinates.
    boxes: Vec<MapPlace>,
}

impl Ows {
    fn with_query(&self, query: &str) -> String {
        let joint = match self.path.contains('?') {
            true => "&",
            false => "?",
        };
        let (service, version) = (self.service.as_str(), percent_encoded(&self.version));
        format!("{}{joint}service={service}&version={version}&{query}", self.path)
    }

    /// Asks what the service offers.
    pub fn capabilities_path(&self) -> String {
        self.with_query("request=GetCapabilities")
    }

    /// Asks for one feature of the first layer.
    pub fn feature_path(&self, capabilities: &Capabilities) -> Option<String> {
        let layer = self.asked(capabilities).filter(|_| self.get_feature).map(percent_encoded)?;
        Some(match self.version.starts_with('1') {
            true => self.with_query(&format!("request=GetFeature&typeName={layer}&maxFeatures=1")),
            false => self.with_query(&format!("request=GetFeature&typeNames={layer}&count=1")),
        })
    }

    /// Asks for a small map of the first layer, where it lies.
    pub fn map_path(&self, capabilities: &Capabilities) -> Option<String> {
        let layer = self.asked(capabilities).filter(|_| self.get_map).map(percent_encoded)?;
        let format = percent_encoded(capabilities.map_format());
        let place = capabilities.place.clone().or_else(|| capabilities.place_of_meant.clone());
        let key = self.system_key();
        let MapPlace { system, edges: [a, b, c, d] } = place.unwrap_or_else(|| self.in_degrees(&[]));
        let system = percent_encoded(&system);
        Some(self.with_query(&format!(
            "request=GetMap&layers={layer}&styles=&{key}={system}&bbox={a},{b},{c},{d}\
             &width={MAP_PIXELS}&height={MAP_PIXELS}&format={format}"
        )))
    }

    /// What the service calls the first layer.
    fn asked<'a>(&'a self, capabilities: &'a Capabilities) -> Option<&'a str> {
        capabilities.asked.as_deref().or(self.layers.first().map(String::as_str))
    }

    /// What requests call a system of coordinates.
    fn system_key(&self) -> &'static str {
        if self.version == "1.3.0" { "crs" } else { "srs" }
    }

    /// The system in degrees, longitude first, that a layer has unless it says otherwise: CRS:84 has longitude first in every
    /// version, EPSG:4326 in 1.1.1 alone (OGC 06-042, 6.7.3).
    fn longitude_first(&self) -> &'static str {
        if self.version == "1.3.0" { "CRS:84" } else { "EPSG:4326" }
    }

    /// Where the last of these layers, which lie within each other, is, longitude first.
    fn in_degrees(&self, layers: &[Layer]) -> MapPlace {
        let degrees = layers.iter().rev().find_map(|layer| layer.degrees);
        MapPlace { system: self.longitude_first().to_owned(), edges: degrees.unwrap_or(WORLD) }
    }

    /// The same in a system that it is offered in: a service may refuse every other one. In degrees if it can be; else as the
    /// capabilities have a box, whose axes go as those of a map.
    fn place(&self, layers: &[Layer]) -> MapPlace {
        let offered = |wanted: &str| {
            let mut systems = layers.iter().flat_map(|layer| &layer.systems);
            systems.any(|system| system.eq_ignore_ascii_case(wanted))
        };
        let degrees = self.in_degrees(layers);
        if offered(&degrees.system) {
            return degrees;
        }
        if offered("EPSG:4326") {
            let [west, south, east, north] = degrees.edges;
            return MapPlace { system: "EPSG:4326".to_owned(), edges: [south, west, north, east] };
        }
        let mut boxes = layers.iter().rev().flat_map(|layer| &layer.boxes).take(MAX_BOXES);
        boxes.find(|found| offered(&found.system)).cloned().unwrap_or(degrees)
    }

    /// Reads capabilities and looks for the layers.
    pub fn capabilities(&self, answer: &Answer) -> Result<Capabilities, String> {
        let (mut found, root) = self.read(answer)?;
        let expected: &[&str] = match self.service {
            Service::Wfs => &["WFS_Capabilities"],
            Service::Wms => &["WMS_Capabilities", "WMT_MS_Capabilities"],
        };
        if !expected.contains(&root.name.as_str()) {
            let service = self.service.as_str();
            return Err(format!("expected capabilities of {service}, got a document `{}`", root.name));
        }
        // WMS 1.1.1 has no namespace.
        if self.version != "1.1.1" && !root.namespace.starts_with(NAMESPACES) {
            return Err(format!("expected capabilities of the OGC, got namespace `{}`", root.namespace));
        }
        if let Some(other) = root.attribute("version").filter(|version| *version != self.version) {
            return Err(format!("expected version {}, got {other}", self.version));
        }
        let mut missing = Vec::new();
        for wanted in &self.layers {
            match found.meant(wanted)?.map(str::to_owned) {
                Some(meant) => found.asked = found.asked.take().or(Some(meant)),
                None => missing.push(wanted.as_str()),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        Err(format!("layer `{}` is missing among {}", missing.join("`, `"), found.layers.len()))
    }

    fn read(&self, answer: &Answer) -> Result<(Capabilities, Element), String> {
        let text = document(answer)?;
        let (mut found, mut root) = (Capabilities::default(), Element::default());
        let mut edges = [None; 4];
        // Those that are open, outermost first. What is around a layer says what it has to before the layer begins.
        let mut open_layers: Vec<Layer> = Vec::new();
        let first = self.layers.first();
        xml::walk(&text, |open| {
            let Some((own, around)) = open.split_last() else { return };
            if around.is_empty() {
                root = own.clone();
            }
            let parent = around.last().map_or("", |parent| parent.name.as_str());
            let value = own.text.trim();
            if matches!((parent, own.name.as_str()), ("FeatureType" | "Layer", "Name"))
                && found.layers.len() < MAX_LAYERS
            {
                found.layers.push(value.to_owned());
            }
            match (parent, own.name.as_str()) {
                ("GetMap", "Format") if found.formats.len() < MAX_FORMATS => {
                    found.formats.push(value.to_owned());
                }
                ("EX_GeographicBoundingBox", edge) => {
                    let index = match edge {
                        "westBoundLongitude" => 0,
                        "southBoundLatitude" => 1,
                        "eastBoundLongitude" => 2,
                        _ => 3,
                    };
                    if let Some(edge) = edges.get_mut(index) {
                        *edge = value.parse().ok();
                    }
                }
                (_, "Layer") => {
                    let of_it = open_layers.iter().filter(|layer| layer.depth <= open.len()).count();
                    open_layers.truncate(of_it);
                    let ended = open_layers.last().filter(|layer| layer.depth == open.len());
                    let name = ended.and_then(|layer| layer.name.as_deref());
                    if let Some((first, name)) = first.zip(name) {
                        let place = match (first == name, is_meant(first, name)) {
                            (true, _) => Some(&mut found.place),
                            (_, true) => Some(&mut found.place_of_meant),
                            _ => None,
                        };
                        if let Some(place) = place.filter(|place| place.is_none()) {
                            *place = Some(self.place(&open_layers));
                        }
                    }
                    open_layers.pop_if(|layer| layer.depth == open.len());
                }
                ("Layer", _) => {
                    if open_layers.last().is_none_or(|layer| layer.depth < around.len()) {
                        open_layers.push(Layer { depth: around.len(), ..Layer::default() });
                    }
                    if let Some(layer) = open_layers.last_mut() {
                        layer.learn(own, std::mem::take(&mut edges));
                    }
                }
                _ => {}
            }
        })?;
        if let Some(report) = exception(&text, &root) {
            return Err(report);
        }
        Ok((found, root))
    }

    /// Judges the answer to a request for a feature.
    pub fn feature(&self, answer: &Answer) -> Result<String, String> {
        if answer.media_type().ends_with("json") {
            let json = answer.json()?;
            let features = json.get("features").and_then(serde_json::Value::as_array);
            let features = features.ok_or_else(|| format!("expected features, got {}", answer.excerpt()))?;
            return self.some(features.is_empty(), &several(features.len(), "feature", "features"));
        }
        let text = document(answer)?;
        let (mut root, mut counted) = (Element::default(), 0_u64);
        xml::walk(&text, |open| {
            let features = match open {
                [own] => {
                    root = own.clone();
                    0
                }
                [_, own] => u64::from(matches!(own.name.as_str(), "member" | "featureMember")),
                [_, members, _] => u64::from(members.name == "featureMembers"),
                _ => 0,
            };
            counted = counted.saturating_add(features);
        })?;
        if let Some(report) = exception(&text, &root) {
            return Err(report);
        }
        if root.name != "FeatureCollection" {
            return Err(format!("expected a collection of features, got a document `{}`", root.name));
        }
        // WFS 1.1.0 may leave the number out, and what is no number says nothing: then the features themselves count.
        let number = root.attribute("numberReturned").or_else(|| root.attribute("numberOfFeatures"));
        let number = number.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(counted);
        self.some(number == 0, &several(number, "feature", "features"))
    }

    /// A layer that lost its data answers as well as one that has them.
    fn some(&self, none: bool, told: &str) -> Result<String, String> {
        let layer = self.layers.first().map(String::as_str).unwrap_or_default();
        match none && !self.may_be_empty {
            true => {
                Err(format!("layer `{layer}` has no feature; where that is right: `may_be_empty = true`"))
            }
            false => Ok(told.to_owned()),
        }
    }

    /// Judges the answer to a request for a map: an image, by its first bytes too.
    pub fn map(&self, answer: &Answer) -> Result<String, String> {
        let kind = answer.media_type().to_owned();
        // A page of failure may be an image, too.
        if answer.succeeded() && kind.starts_with("image/") && (is_image(&answer.body) || is_drawing(answer))
        {
            return Ok(format!("a map of {} bytes", answer.body.len()));
        }
        // A failure comes as XML, whatever format was asked for.
        document(answer).and_then(|text| {
            let mut root = Element::default();
            xml::walk(&text, |open| {
                if let [own] = open {
                    root = own.clone();
                }
            })?;
            Err(exception(&text, &root).unwrap_or_else(|| format!("expected an image, got `{kind}`")))
        })
    }
}

impl Layer {
    /// Takes what an element says of the layer around it; `edges` are those of a box that were written as elements.
    fn learn(&mut self, own: &Element, edges: [Option<f64>; 4]) {
        let read = |name| own.attribute(name).and_then(|text| text.trim().parse().ok());
        let attributes = [read("minx"), read("miny"), read("maxx"), read("maxy")];
        match own.name.as_str() {
            "Name" => self.name = Some(own.text.trim().to_owned()),
            // Before 1.3.0 one element may have several.
            "CRS" | "SRS" => self.systems.extend(own.text.split_whitespace().map(str::to_owned)),
            "EX_GeographicBoundingBox" | "LatLonBoundingBox" => {
                self.degrees = whole(attributes).or_else(|| whole(edges)).or(self.degrees);
            }
            "BoundingBox" => {
                let system = own.attribute("CRS").or_else(|| own.attribute("SRS"));
                let place = system.zip(whole(attributes));
                self.boxes.extend(place.map(|(system, edges)| MapPlace { system: system.to_owned(), edges }));
            }
            _ => {}
        }
    }
}

fn whole(edges: [Option<f64>; 4]) -> Option<Edges> {
    let [Some(west), Some(south), Some(east), Some(north)] = edges else { return None };
    let sound = [west, south, east, north].iter().all(|edge| edge.is_finite());
    (sound && west < east && south < north).then_some([west, south, east, north])
}

/// The answer's body, if it was answered well enough to have one.
fn document(answer: &Answer) -> Result<Cow<'_, str>, String> {
    let text = encoding::text(&answer.body, answer.charset());
    // An exception report may come with a status of failure, and says more.
    let says = text.as_ref().is_ok_and(|text| text.contains("ExceptionReport"));
    if !answer.succeeded() && !says {
        return Err(format!("expected status 2xx, got {}: {}", answer.status, answer.excerpt()));
    }
    text.map_err(|error| format!("{error}: {}", answer.excerpt()))
}

/// What an exception report says: OWS Common (`ExceptionReport`) and WMS (`ServiceExceptionReport`).
fn exception(text: &str, root: &Element) -> Option<String> {
    if !root.name.ends_with("ExceptionReport") {
        return None;
    }
    let (mut code, mut said) = (None, String::new());
    let walked = xml::walk(text, |open| {
        let Some(own) = open.last() else { return };
        match own.name.as_str() {
            "Exception" => code = code.take().or(own.attribute("exceptionCode").map(str::to_owned)),
            "ServiceException" => {
                code = code.take().or(own.attribute("code").map(str::to_owned));
                if said.is_empty() {
                    own.text.trim().clone_into(&mut said);
                }
            }
            "ExceptionText" if said.is_empty() => own.text.trim().clone_into(&mut said),
            _ => {}
        }
    });
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let code = code.unwrap_or_else(|| "no code".to_owned());
    walked.ok().map(|()| format!("the service reports an exception ({code}): {said}"))
}

fn is_image(bytes: &[u8]) -> bool {
    let begins = |magic: &[u8]| bytes.starts_with(magic);
    begins(b"\x89PNG\r\n\x1a\n")
        || begins(b"\xff\xd8\xff")
        || begins(b"GIF8")
        || (begins(b"RIFF") && bytes.get(8..12) == Some(b"WEBP"))
        || begins(b"II*\0")
        || begins(b"MM\0*")
}

/// Whether an answer is an SVG by its root.
fn is_drawing(answer: &Answer) -> bool {
    let mut is_drawing = false;
    let walked = document(answer).and_then(|text| {
        xml::walk(&text, |open| {
            if let [root] = open {
                is_drawing = root.name == "svg" && root.namespace == "http://www.w3.org/2000/svg";
            }
        })
    });
    walked.is_ok() && is_drawing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ows(service: Service, version: &str, layers: &[&str]) -> Ows {
        Ows {
            service,
            version: version.to_owned(),
            path: "/geoserver/ows".to_owned(),
            layers: layers.iter().map(|layer| (*layer).to_owned()).collect(),
            get_feature: true,
            may_be_empty: false,
            get_map: true,
        }
    }

    fn answer(kind: &str, body: &str) -> Answer {
        let headers = vec![("content-type".to_owned(), kind.to_owned())];
        Answer { status: 200, headers, body: body.as_bytes().to_vec(), took_ms: 1, ..Answer::default() }
    }

    const WFS: &str = r#"<?xml version="1.0"?><wfs:WFS_Capabilities version="2.0.0"
        xmlns:wfs="http://www.opengis.net/wfs/2.0"><FeatureTypeList xmlns="http://www.opengis.net/wfs/2.0">
        <FeatureType><Name>p2d2:features</Name><Title>Name</Title></FeatureType>
        <FeatureType><Name>p2d2:other</Name></FeatureType></FeatureTypeList></wfs:WFS_Capabilities>"#;

    const WMS: &str = r#"<WMS_Capabilities version="1.3.0" xmlns="http://www.opengis.net/wms"><Capability>
        <Layer><Title>all</Title><EX_GeographicBoundingBox><westBoundLongitude>5</westBoundLongitude>
        <eastBoundLongitude>16</eastBoundLongitude><southBoundLatitude>47</southBoundLatitude>
        <northBoundLatitude>55</northBoundLatitude></EX_GeographicBoundingBox>
        <Layer><Name>p2d2:basemap</Name><Style><Name>plain</Name></Style></Layer>
        <Layer><Name>p2d2:bonn</Name><EX_GeographicBoundingBox><westBoundLongitude>7</westBoundLongitude>
        <eastBoundLongitude>7.2</eastBoundLongitude><southBoundLatitude>50.6</southBoundLatitude>
        <northBoundLatitude>50.8</northBoundLatitude></EX_GeographicBoundingBox></Layer>
        </Layer></Capability></WMS_Capabilities>"#;

    #[test]
    fn layers_are_found_and_missed() {
        let wfs = ows(Service::Wfs, "2.0.0", &["p2d2:features"]);
        assert_eq!(wfs.capabilities(&answer("text/xml", WFS)).unwrap().layers.len(), 2);
        let gone = ows(Service::Wfs, "2.0.0", &["p2d2:features", "p2d2:gone"]);
        let said = gone.capabilities(&answer("text/xml", WFS)).unwrap_err();
        assert_eq!(said, "layer `p2d2:gone` is missing among 2");
        let old = ows(Service::Wfs, "1.1.0", &[]);
        assert_eq!(
            old.capabilities(&answer("text/xml", WFS)).unwrap_err(),
            "expected version 1.1.0, got 2.0.0"
        );
        // The name of a style is no layer.
        let style = ows(Service::Wms, "1.3.0", &["plain"]);
        assert!(style.capabilities(&answer("text/xml", WMS)).is_err());
        let said = wfs.capabilities(&answer("text/xml", WMS)).unwrap_err();
        assert!(said.contains("got a document `WMS_Capabilities`"), "{said}");
    }

    #[test]
    fn a_layer_may_be_named_with_its_prefix_or_without() {
        let document = |layers: &[(&str, &str)]| {
            let layer = |(name, west): &(&str, &str)| {
                format!(
                    r#"<Layer><Name>{name}</Name><LatLonBoundingBox minx="{west}" miny="50" maxx="9" maxy="51"/></Layer>"#
                )
            };
            format!(
                r#"<WMS_Capabilities version="1.3.0" xmlns="http://www.opengis.net/wms"><Capability><Layer>{}</Layer></Capability>
                   </WMS_Capabilities>"#,
                layers.iter().map(layer).collect::<String>()
            )
        };
        let asked = |wanted: &str, layers: &[(&str, &str)]| -> Result<String, String> {
            let wms = ows(Service::Wms, "1.3.0", &[wanted]);
            let found = wms.capabilities(&answer("text/xml", &document(layers)))?;
            let path = wms.map_path(&found).unwrap();
            let (_, of) = path.split_once("&layers=").unwrap();
            let (layer, place) = (of.split('&').next().unwrap(), of.split_once("bbox=").unwrap().1);
            Ok(format!("{layer} from {}", place.split(',').next().unwrap()))
        };
        // The service of a workspace leaves its prefix out.
        assert_eq!(asked("p2d2:bonn", &[("roads", "3"), ("bonn", "7")]).unwrap(), "bonn from 7");
        assert_eq!(asked("bonn", &[("p2d2:roads", "3"), ("p2d2:bonn", "7")]).unwrap(), "p2d2%3Abonn from 7");
        // What is called exactly so is meant, wherever it stands.
        assert_eq!(asked("bonn", &[("p2d2:bonn", "3"), ("bonn", "7")]).unwrap(), "bonn from 7");
        // Another workspace's layer is another layer, and nobody guesses.
        assert_eq!(
            asked("p2d2:bonn", &[("other:bonn", "7")]).unwrap_err(),
            "layer `p2d2:bonn` is missing among 1"
        );
        assert_eq!(
            asked("bonn", &[("a:bonn", "3"), ("b:bonn", "7")]).unwrap_err(),
            "layer `bonn` may be `a:bonn` or `b:bonn`: name it with its prefix"
        );
        let wfs = ows(Service::Wfs, "2.0.0", &["features", "p2d2:other"]);
        let found = wfs.capabilities(&answer("text/xml", WFS)).unwrap();
        assert!(wfs.feature_path(&found).unwrap().contains("typeNames=p2d2%3Afeatures&"));
    }

    #[test]
    fn a_map_is_asked_for_in_a_format_that_is_offered() {
        let format = |offered: &str| {
            let document = format!(
                r#"<WMS_Capabilities version="1.3.0" xmlns="http://www.opengis.net/wms"><Capability><Request>
                   <GetCapabilities><Format>image/webp</Format></GetCapabilities><GetMap>{offered}</GetMap></Request>
                   <Layer><Name>a</Name></Layer></Capability></WMS_Capabilities>"#
            );
            let wms = ows(Service::Wms, "1.3.0", &["a"]);
            let path = wms.map_path(&wms.capabilities(&answer("text/xml", &document)).unwrap()).unwrap();
            path.split_once("&format=").unwrap().1.to_owned()
        };
        for (offered, expected) in [
            ("", "image%2Fpng"),
            ("<Format>image/jpeg</Format><Format>image/png</Format>", "image%2Fpng"),
            (
                "<Format>application/pdf</Format><Format>image/svg+xml</Format><Format>image/tiff</Format>",
                "image%2Ftiff",
            ),
            ("<Format>image/PNG; mode=8bit</Format>", "image%2FPNG%3B%20mode%3D8bit"),
            ("<Format>application/x-protobuf;type=mapbox-vector</Format>", "image%2Fpng"),
        ] {
            assert_eq!(format(offered), expected, "{offered}");
        }
    }

    #[test]
    fn a_map_is_asked_for_where_the_layer_lies() {
        for (layer, place) in [("p2d2:basemap", "bbox=5,47,16,55"), ("p2d2:bonn", "bbox=7,50.6,7.2,50.8")] {
            let wms = ows(Service::Wms, "1.3.0", &[layer]);
            let path = wms.map_path(&wms.capabilities(&answer("text/xml", WMS)).unwrap()).unwrap();
            assert!(path.contains(place), "{path}");
            assert!(
                path.starts_with("/geoserver/ows?service=WMS&version=1.3.0&request=GetMap&layers=p2d2%3A")
            );
        }
        let old = ows(Service::Wms, "1.1.1", &["a"]).map_path(&Capabilities::default()).unwrap();
        assert!(old.contains("srs=EPSG%3A4326&bbox=-180,-90,180,90"), "{old}");
    }

    #[test]
    fn a_map_is_asked_for_in_a_system_that_the_layer_is_offered_in() {
        let map = |version: &str, outer: &str, own: &str| {
            let document = format!(
                r#"<WMS_Capabilities version="{version}" xmlns="http://www.opengis.net/wms"><Capability>
                   <Layer><Name>all</Name>{outer}<LatLonBoundingBox minx="5" miny="47" maxx="16" maxy="55"/>
                   <Layer><Name>other</Name><CRS>CRS:84</CRS><SRS>EPSG:4326</SRS></Layer>
                   <Layer><Name>a</Name>{own}<Layer><Name>inner</Name><CRS>CRS:84</CRS></Layer></Layer>
                   </Layer></Capability></WMS_Capabilities>"#
            );
            let wms = ows(Service::Wms, version, &["a"]);
            let path = wms.map_path(&wms.capabilities(&answer("text/xml", &document)).unwrap()).unwrap();
            let (_, query) = path.split_once("&styles=&").unwrap();
            query.split_once("&width").unwrap().0.to_owned()
        };
        let utm =
            r#"<BoundingBox CRS="EPSG:25832" minx="280000" miny="5200000.5" maxx="930000" maxy="6100000"/>"#;
        let mercator =
            r#"<BoundingBox CRS="EPSG:3857" minx="6e5" miny="6000000" maxx="1700000" maxy="7300000"/>"#;
        for (outer, own, expected) in [
            ("", "", "crs=CRS%3A84&bbox=5,47,16,55"),
            ("<CRS>EPSG:4326</CRS><CRS>CRS:84</CRS>", "", "crs=CRS%3A84&bbox=5,47,16,55"),
            // Latitude first, in 1.3.0.
            ("<CRS>EPSG:25832</CRS><CRS>EPSG:4326</CRS>", utm, "crs=EPSG%3A4326&bbox=47,5,55,16"),
            ("<CRS>EPSG:25832</CRS>", utm, "crs=EPSG%3A25832&bbox=280000,5200000.5,930000,6100000"),
            (
                &format!("<CRS>EPSG:25832</CRS>{utm}"),
                "",
                "crs=EPSG%3A25832&bbox=280000,5200000.5,930000,6100000",
            ),
            // A box in a system that is not offered is no use.
            (
                "<CRS>EPSG:3857</CRS>",
                &format!("{utm}{mercator}"),
                "crs=EPSG%3A3857&bbox=600000,6000000,1700000,7300000",
            ),
            ("<CRS>EPSG:31467</CRS>", utm, "crs=CRS%3A84&bbox=5,47,16,55"),
        ] {
            assert_eq!(map("1.3.0", outer, own), expected, "{outer} {own}");
        }
        for (outer, own, expected) in [
            ("<SRS>EPSG:25832 EPSG:4326</SRS>", "", "srs=EPSG%3A4326&bbox=5,47,16,55"),
            (
                "<SRS>EPSG:25832</SRS>",
                &utm.replace("CRS", "SRS"),
                "srs=EPSG%3A25832&bbox=280000,5200000.5,930000,6100000",
            ),
        ] {
            assert_eq!(map("1.1.1", outer, own), expected, "{outer} {own}");
        }
    }

    #[test]
    fn what_a_server_calls_its_systems_adds_nothing_to_the_request() {
        let document = r#"<WMS_Capabilities version="1.3.0" xmlns="http://www.opengis.net/wms"><Layer><Name>a</Name>
            <CRS>X&amp;request=Y</CRS><BoundingBox CRS="X&amp;request=Y" minx="1" miny="2" maxx="3" maxy="4"/></Layer>
            </WMS_Capabilities>"#;
        let wms = ows(Service::Wms, "1.3.0", &["a"]);
        let path = wms.map_path(&wms.capabilities(&answer("text/xml", document)).unwrap()).unwrap();
        assert!(path.contains("&crs=X%26request%3DY&bbox=1,2,3,4&"), "{path}");
    }

    #[test]
    fn capabilities_of_1_1_1_bring_a_document_type() {
        // As MapServer writes them.
        let mapserver = r#"<?xml version='1.0' encoding="UTF-8" standalone="no" ?>
<!DOCTYPE WMT_MS_Capabilities SYSTEM "http://schemas.opengis.net/wms/1.1.1/WMS_MS_Capabilities.dtd"
 [
 <!ELEMENT VendorSpecificCapabilities EMPTY>
 ]>  <!-- end of DOCTYPE declaration -->

<WMT_MS_Capabilities version="1.1.1"><Service><Name>OGC:WMS</Name></Service><Capability>
<Layer><Name>all</Name><LatLonBoundingBox minx="5" miny="47" maxx="16" maxy="55" />
<Layer queryable="0"><Name>bonn</Name></Layer></Layer></Capability></WMT_MS_Capabilities>"#;
        let wms = ows(Service::Wms, "1.1.1", &["bonn"]);
        let found = wms.capabilities(&answer("application/vnd.ogc.wms_xml", mapserver)).unwrap();
        assert_eq!(found.layers, ["all", "bonn"]);
        assert!(wms.map_path(&found).unwrap().contains("bbox=5,47,16,55"));
    }

    #[test]
    fn a_map_is_an_image_by_its_bytes() {
        let wms = ows(Service::Wms, "1.3.0", &["a"]);
        let mut map = answer("image/png", "");
        map.body = b"\x89PNG\r\n\x1a\nrest".to_vec();
        assert_eq!(wms.map(&map).unwrap(), "a map of 12 bytes");
        for status in [404, 503] {
            let said = wms.map(&Answer { status, ..map.clone() }).unwrap_err();
            assert!(said.starts_with(&format!("expected status 2xx, got {status}")), "{said}");
        }
        assert!(wms.map(&answer("image/png", "<html/>")).unwrap_err().contains("expected an image"));
        let svg = r#"<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.0//EN" "http://www.w3.org/TR/svg10.dtd">
            <svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>"#;
        assert!(wms.map(&answer("image/svg+xml", svg)).is_ok());
        assert!(wms.map(&answer("image/svg+xml", "<svg>broken")).is_err());
        assert!(wms.map(&answer("image/svg+xml", "<html xmlns=\"http://www.w3.org/1999/xhtml\"/>")).is_err());
        for tiff in [&b"II*\0rest"[..], b"MM\0*rest"] {
            map.body = tiff.to_vec();
            let tiff = |kind: &str| wms.map(&Answer { body: map.body.clone(), ..answer(kind, "") });
            assert_eq!(tiff("image/tiff").unwrap(), "a map of 8 bytes");
            // What is no image by its own word is none.
            assert!(tiff("text/html").is_err());
        }
        let report = r#"<ServiceExceptionReport xmlns="http://www.opengis.net/ogc"><ServiceException
            code="LayerNotDefined">Could not find
            layer a</ServiceException></ServiceExceptionReport>"#;
        assert_eq!(
            wms.map(&answer("text/xml", report)).unwrap_err(),
            "the service reports an exception (LayerNotDefined): Could not find layer a"
        );
    }

    #[test]
    fn a_layer_without_a_feature_has_lost_its_data() {
        let wfs = ows(Service::Wfs, "2.0.0", &["a"]);
        let empty = Ows { may_be_empty: true, ..wfs.clone() };
        let collection = |number: &str| format!("<FeatureCollection numberReturned=\"{number}\"/>");
        for (kind, none, one) in [
            ("application/json", r#"{"features": []}"#.to_owned(), r#"{"features": [{}]}"#.to_owned()),
            ("text/xml", collection("0"), collection("1")),
        ] {
            assert_eq!(wfs.feature(&answer(kind, &one)).unwrap(), "1 feature");
            let said = wfs.feature(&answer(kind, &none)).unwrap_err();
            assert!(said.starts_with("layer `a` has no feature") && said.contains("may_be_empty"), "{said}");
            assert_eq!(empty.feature(&answer(kind, &none)).unwrap(), "0 features");
        }
    }

    #[test]
    fn where_no_number_is_given_features_are_counted() {
        let wfs = ows(Service::Wfs, "1.1.0", &["a"]);
        let judged = |attributes: &str, inside: &str| {
            let gml = format!(
                r#"<wfs:FeatureCollection xmlns:wfs="http://www.opengis.net/wfs" xmlns:gml="http://www.opengis.net/gml"
                   {attributes}><gml:boundedBy><gml:null>unknown</gml:null></gml:boundedBy>{inside}</wfs:FeatureCollection>"#
            );
            wfs.feature(&answer("text/xml", &gml))
        };
        let one = "<a><name>Bonn</name></a>";
        for none in ["", "<gml:featureMembers/>"] {
            for attributes in ["", "numberReturned=\"unknown\""] {
                assert!(judged(attributes, none).unwrap_err().contains("has no feature"), "{none}");
            }
        }
        for tag in ["gml:featureMember", "gml:featureMembers", "wfs:member"] {
            let found = judged("", &format!("<{tag}>{one}</{tag}>"));
            assert_eq!(found.as_deref(), Ok("1 feature"), "{tag}");
        }
        assert_eq!(
            judged("", &format!("<gml:featureMembers>{one}{one}</gml:featureMembers>")).unwrap(),
            "2 features"
        );
    }

    #[test]
    fn exception_reports_are_no_answers() {
        let report = r#"<ows:ExceptionReport xmlns:ows="http://www.opengis.net/ows/1.1"><ows:Exception
            exceptionCode="OperationProcessingFailed"><ows:ExceptionText>no database</ows:ExceptionText>
            </ows:Exception></ows:ExceptionReport>"#;
        let wfs = ows(Service::Wfs, "2.0.0", &["a"]);
        let expected = "the service reports an exception (OperationProcessingFailed): no database";
        assert_eq!(wfs.capabilities(&answer("text/xml", report)).unwrap_err(), expected);
        let failed = Answer { status: 400, ..answer("text/xml", report) };
        assert_eq!(wfs.feature(&failed).unwrap_err(), expected);
        let plain = Answer { status: 503, ..answer("text/html", "<h1>busy</h1>") };
        assert_eq!(wfs.feature(&plain).unwrap_err(), "expected status 2xx, got 503: `<h1>busy</h1>`");
    }

    #[test]
    fn documents_are_read_in_the_encoding_that_they_declare() {
        let in_latin_1 = |document: &str| Answer {
            body: document.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap()).collect(),
            ..answer("text/xml", "")
        };
        let declared = "<?xml version=\"1.0\" encoding=\"ISO-8859-1\" ?>\n";
        let wms = ows(Service::Wms, "1.3.0", &["größe"]);
        let titled =
            WMS.replace("<Title>all</Title>", "<Title>Straßen</Title>").replace("p2d2:bonn", "größe");
        let found = wms.capabilities(&in_latin_1(&format!("{declared}{titled}"))).unwrap();
        assert_eq!(found.layers, ["p2d2:basemap", "größe"]);
        let said = wms.capabilities(&in_latin_1(&titled)).unwrap_err();
        assert!(said.starts_with("the answer is no UTF-8 text: `<WMS_Capabilities"), "{said}");
        let report = "<ServiceExceptionReport><ServiceException>für nichts</ServiceException></ServiceExceptionReport>";
        assert_eq!(
            wms.map(&Answer { status: 500, ..in_latin_1(&format!("{declared}{report}")) }).unwrap_err(),
            "the service reports an exception (no code): für nichts"
        );
    }

    #[test]
    fn features_come_as_gml_or_json() {
        let wfs = ows(Service::Wfs, "2.0.0", &["p2d2:features"]);
        let found = wfs.capabilities(&answer("text/xml", WFS)).unwrap();
        assert!(wfs.feature_path(&found).unwrap().contains("typeNames=p2d2%3Afeatures&count=1"));
        let gml = r#"<wfs:FeatureCollection xmlns:wfs="http://www.opengis.net/wfs/2.0" numberReturned="1"/>"#;
        assert_eq!(wfs.feature(&answer("application/gml+xml", gml)).unwrap(), "1 feature");
        assert_eq!(wfs.feature(&answer("application/json", r#"{"features":[{}]}"#)).unwrap(), "1 feature");
        assert!(wfs.feature(&answer("text/xml", "<a/>")).is_err());
    }
}
