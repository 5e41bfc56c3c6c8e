//! The second that is being counted.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pointsman_core::signal::{Cell, CellKey, Ending, FAILED_BEFORE, OWN_CHECKS, Probes, Retries};
use pointsman_core::{BackendName, RouteClass, RouteEpoch};

use super::failed_before::FailedBefore;
use super::frame::{Frame, Framer};
use super::line::{Line, Read, read};
use crate::states::ServerName;

/// Most cells of one second: few backends, two or three epochs around a switch, at most eight classes. More of them are
/// a mistake in `haproxy.cfg` or a stranger on the port; with so many a tick still fits into one message.
const MAX_CELLS: usize = 48;

/// Counts lines.
#[derive(Debug)]
pub struct Tally {
    backends: Vec<BackendName>,
    owners: Owners,
    open: Mutex<Open>,
}

/// By what a line is known to be a backend's of a route. Few of either are looked through faster than any map is asked.
#[derive(Debug)]
enum Owners {
    /// It names the backend.
    Named,
    /// It names a server of it, by its place among the backends: several of them share one backend of HAProxy's.
    Servers(Vec<(ServerName, usize)>),
}

/// Whose a line is.
enum Owner {
    /// Of the backend in this place.
    Backend(usize),
    /// Of none that is counted.
    Nobody,
    /// It does not say what would tell.
    Unsaid,
}

impl Owners {
    fn of(&self, backends: &[BackendName], line: &Line<'_>) -> Owner {
        let found = match (self, line.server) {
            (Self::Named, _) => backends.iter().position(|name| name.as_str().as_bytes() == line.backend),
            (Self::Servers(servers), Some(server)) => {
                let named = |name: &ServerName| {
                    name.server().as_bytes() == server && name.backend().as_bytes() == line.backend
                };
                servers.iter().find(|(name, _)| named(name)).map(|(_, place)| *place)
            }
            (Self::Servers(servers), None) => {
                let theirs = servers.iter().any(|(name, _)| name.backend().as_bytes() == line.backend);
                return if theirs { Owner::Unsaid } else { Owner::Nobody };
            }
        };
        found.map_or(Owner::Nobody, Owner::Backend)
    }
}

/// What came since the last second was closed, and how much ever came.
#[derive(Debug, Default)]
struct Open {
    cells: Vec<(usize, CellKey, Cell)>,
    probes: BTreeMap<BackendName, Probes>,
    failed_before: FailedBefore,
    broken: u64,
    without_retries: bool,
    /// Lines that were counted in the agent's whole life, by backend: as many as [`Tally::backends`], or none yet.
    covered: Vec<u64>,
}

/// A second that is over.
#[derive(Debug, Default)]
pub struct Counted {
    /// By backend, route and class.
    pub cells: BTreeMap<CellKey, Cell>,
    /// Of the class of pointsman's own checks: by backend, apart from all others.
    pub probes: BTreeMap<BackendName, Probes>,
    /// Lines that could not be read, or found no place.
    pub broken: u64,
    /// Every line said how often its request was tried again.
    pub lines_tell_retries: bool,
}

impl Tally {
    /// Counts the lines that name these backends; those of others are nobody's here.
    pub fn new(backends: Vec<BackendName>) -> Self {
        Self { backends, owners: Owners::Named, open: Mutex::default() }
    }

    /// Counts the lines of these backends' servers, whatever backend of HAProxy's holds them. What HAProxy answers for want
    /// of a server is nobody's.
    pub fn by_servers(backends: Vec<BackendName>, servers: impl Fn(&BackendName) -> Vec<ServerName>) -> Self {
        let owned = backends
            .iter()
            .enumerate()
            .flat_map(|(place, backend)| servers(backend).into_iter().map(move |server| (server, place)));
        let owners = Owners::Servers(owned.collect());
        Self { backends, owners, open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what was read from a connection.
    pub fn feed(&self, framer: &mut Framer, chunk: &[u8]) {
        let mut open = self.open();
        framer.feed(chunk, |frame| {
            let read = match frame {
                Frame::Line(line) => read(line),
                Frame::TooLong => Read::Broken,
            };
            match read {
                Read::Request(line) => open.take(&self.backends, &self.owners, &line),
                Read::Broken => open.broken = open.broken.saturating_add(1),
                Read::Foreign => {}
            }
        });
    }

    /// How many lines were ever counted, of each backend.
    pub fn covered(&self) -> BTreeMap<BackendName, u64> {
        let open = self.open();
        let counted = |index| open.covered.get(index).copied().unwrap_or(0);
        self.backends.iter().enumerate().map(|(index, name)| (name.clone(), counted(index))).collect()
    }

    /// Ends the second. A line that comes later counts in the next one.
    pub fn close(&self) -> Counted {
        let mut open = self.open();
        open.failed_before.close();
        let cells = std::mem::take(&mut open.cells).into_iter().map(|(_, key, cell)| (key, cell)).collect();
        let lines_tell_retries = !std::mem::take(&mut open.without_retries);
        Counted {
            cells,
            probes: std::mem::take(&mut open.probes),
            broken: std::mem::take(&mut open.broken),
            lines_tell_retries,
        }
    }
}

impl Open {
    fn take(&mut self, backends: &[BackendName], owners: &Owners, line: &Line<'_>) {
        let backend = match owners.of(backends, line) {
            Owner::Backend(backend) => backend,
            Owner::Nobody => return,
            Owner::Unsaid => {
                self.broken = self.broken.saturating_add(1);
                return;
            }
        };
        let Some(name) = backends.get(backend) else { return };
        let ending = Ending::of(line.status, line.termination);
        if line.class == OWN_CHECKS.as_bytes() {
            self.probes.entry(name.clone()).or_default().count(ending);
        } else {
            let retries = line.retries.unwrap_or_default();
            let class = if self.failed_before(line, backend, ending, retries) {
                FAILED_BEFORE.as_bytes()
            } else {
                line.class
            };
            let Some(cell) = self.cell(backends, backend, &Line { class, ..*line }) else {
                self.broken = self.broken.saturating_add(1);
                return;
            };
            cell.count(ending, line.status, line.took_ms, retries);
            self.without_retries |= line.retries.is_none();
        }
        self.covered.resize(backends.len(), 0);
        if let Some(covered) = self.covered.get_mut(backend) {
            *covered = covered.saturating_add(1);
        }
    }

    /// Whether the visitor of a line had failed before the release that it is of, as failures are judged. What says nothing of a
    /// slot says nothing of them.
    fn failed_before(&mut self, line: &Line<'_>, backend: usize, ending: Ending, retries: Retries) -> bool {
        let failed = match ending {
            Ending::Answered => retries.count > 0 || retries.redispatched,
            Ending::Failed { .. } => true,
            Ending::ClientLeft { .. } | Ending::NotForwarded => return false,
        };
        line.visitor.is_some_and(|visitor| self.failed_before.take(visitor, line.epoch, backend, failed))
    }

    /// The cell of a line. Few are in use at once, so looking through them is faster than any map.
    fn cell(&mut self, backends: &[BackendName], backend: usize, line: &Line<'_>) -> Option<&mut Cell> {
        let same = |(index, key, _): &(usize, CellKey, Cell)| {
            *index == backend && key.epoch.0 == line.epoch && key.class.as_str().as_bytes() == line.class
        };
        if let Some(at) = self.cells.iter().position(same) {
            return self.cells.get_mut(at).map(|(_, _, cell)| cell);
        }
        if self.cells.len() >= MAX_CELLS {
            return None;
        }
        let class = std::str::from_utf8(line.class).ok().and_then(|class| RouteClass::parse(class).ok())?;
        let key = CellKey { backend: backends.get(backend)?.clone(), epoch: RouteEpoch(line.epoch), class };
        self.cells.push((backend, key, Cell::default()));
        self.cells.last_mut().map(|(_, _, cell)| cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::signal::is_judged;
    use pointsman_core::verdict::{Choices, Counts, Judge, Latency, Params, Tick, Verdict};

    fn tally() -> Tally {
        Tally::new(["be_blue", "be_maint"].map(|name| name.parse().unwrap()).to_vec())
    }

    fn feed(tally: &Tally, lines: &[&str]) {
        tally.feed(&mut Framer::default(), (lines.join("\n") + "\n").as_bytes());
    }

    #[test]
    fn checks_and_other_backends_are_no_visitors() {
        let tally = tally();
        feed(
            &tally,
            &[
                "pm1 be=be_blue st=200 tsc=---- ta=3 epoch=4 class=api rc=0",
                "pm1 be=be_blue st=500 tsc=---- ta=4 epoch=4 class=check rc=0",
                "pm1 be=be_blue st=200 tsc=---- ta=4 epoch=4 class=check rc=0",
                "pm1 be=fe st=400 tsc=PR-- ta=0 epoch=- class=- rc=0",
                "pm1 be=be_acme st=200 tsc=---- ta=0 epoch=4 class=api rc=0",
                "pm1 be=be_maint st=503 tsc=LR-- ta=0 epoch=4 class=other rc=0",
                "Server be_blue/s1 is DOWN.",
                "pm1 be=be_blue st=200",
            ],
        );
        let counted = tally.close();
        let seen: Vec<_> = counted
            .cells
            .iter()
            .map(|(key, cell)| (key.backend.as_str(), cell.requests, cell.failures, cell.not_forwarded))
            .collect();
        assert_eq!(seen, [("be_blue", 1, 0, 0), ("be_maint", 0, 0, 1)]);
        let probes: Vec<_> =
            counted.probes.iter().map(|(backend, probes)| (backend.as_str(), *probes)).collect();
        assert_eq!(probes, [("be_blue", Probes { requests: 2, failures: 1 })]);
        let covered: Vec<u64> = tally.covered().into_values().collect();
        assert_eq!((covered, counted.broken, counted.lines_tell_retries), (vec![3, 1], 1, true));
        let next = tally.close();
        assert!(next.cells.is_empty() && next.probes.is_empty() && next.broken == 0);
    }

    /// One backend of HAProxy's holds the servers of both: only the server tells whose visitor it was.
    #[test]
    fn servers_tell_whose_a_line_is() {
        let backends = ["be_blue", "be_green"].map(|name| name.parse().unwrap()).to_vec();
        let tally = Tally::by_servers(backends, |backend| match backend.as_str() {
            "be_blue" => ["be_app/blue1", "be_app/blue2"].map(|name| name.parse().unwrap()).to_vec(),
            _ => vec!["be_app/green1".parse().unwrap()],
        });
        let line = |who: &str| format!("pm1 {who} st=200 tsc=---- ta=3 epoch=- class=api rc=0");
        let of = ["be=be_app sv=blue1", "be=be_app sv=blue2", "be=be_app sv=green1", "be=be_app sv=legacy1"];
        let others = ["be=be_app sv=<NOSRV>", "be=be_other sv=blue1", "be=be_blue sv=s1", "be=fe"];
        // The last could be anybody's, and is said to be missing.
        let lines: Vec<String> =
            of.iter().chain(&others).chain(&["be=be_app"]).map(|who| line(who)).collect();
        feed(&tally, &lines.iter().map(String::as_str).collect::<Vec<_>>());
        let counted = tally.close();
        let seen: Vec<_> =
            counted.cells.iter().map(|(key, cell)| (key.backend.as_str(), cell.requests)).collect();
        assert_eq!((seen, counted.broken), (vec![("be_blue", 2), ("be_green", 1)], 1));
        assert_eq!(tally.covered().into_values().collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn a_format_without_retries_says_so() {
        let tally = tally();
        feed(&tally, &["pm1 be=be_blue st=200 tsc=---- ta=3 epoch=4 class=api"]);
        assert!(!tally.close().lines_tell_retries);
        assert!(tally.close().lines_tell_retries, "nothing came");
    }

    #[test]
    fn cells_are_bounded_and_what_finds_no_place_is_not_covered() {
        let tally = tally();
        for epoch in 0..MAX_CELLS + 10 {
            feed(&tally, &[&format!("pm1 be=be_blue st=200 tsc=---- ta=3 epoch={epoch} class=api")]);
        }
        feed(&tally, &["pm1 be=be_blue st=200 tsc=---- ta=3 epoch=0 class=\u{e4}"]);
        let counted = tally.close();
        assert_eq!((counted.cells.len(), counted.broken), (MAX_CELLS, 11));
        assert_eq!(tally.covered().into_values().sum::<u64>(), MAX_CELLS as u64);
    }

    /// Lines of a hundred visitors, each of whom asks once a second, ten of them on the new slot from the release on; a hundred
    /// and first on its side too asks for a page that fails on both slots, four times in five seconds.
    struct Site {
        tally: Tally,
        /// Whether lines say who asks.
        named: bool,
        second: u64,
    }

    impl Site {
        fn new(named: bool) -> Self {
            let backends = ["be_blue", "be_green"].map(|name| name.parse().unwrap()).to_vec();
            Self { tally: Tally::new(backends), named, second: 0 }
        }

        /// One second on a route; of its visitors on the new slot so many fail.
        fn second(&mut self, epoch: u64, failing: u64) -> Counted {
            self.second += 1;
            let line = |visitor: u64, status: u16| {
                let backend = if epoch >= 32 && visitor < 10 { "be_green" } else { "be_blue" };
                let vid = if self.named { format!(" vid={visitor}") } else { String::new() };
                format!("pm1 be={backend} st={status} tsc=---- ta=3 epoch={epoch} class=api rc=0{vid}")
            };
            let mut lines: Vec<String> =
                (1..=100).map(|who| line(who, if who <= failing { 500 } else { 200 })).collect();
            lines.extend((!self.second.is_multiple_of(5)).then(|| line(0, 500)));
            feed(&self.tally, &lines.iter().map(String::as_str).collect::<Vec<_>>());
            self.tally.close()
        }

        /// After how many seconds of a release it is turned back, within ten minutes.
        fn turned_back(&mut self, failing: u64) -> Option<u64> {
            (0..60).for_each(|_| drop(self.second(16, 0)));
            let mut judge = Judge::new(Params::new(Choices::default()).unwrap());
            (1..=600).find(|number| {
                let counted = self.second(32, failing);
                let of = |backend: &str| {
                    let cells = counted.cells.iter();
                    let cells =
                        cells.filter(|(key, _)| key.backend.as_str() == backend && is_judged(&key.class));
                    cells.fold(Counts::default(), |sum, (_, cell)| Counts {
                        requests: sum.requests + u32::try_from(cell.judged()).unwrap(),
                        errors: sum.errors + u32::try_from(cell.failed_by_servers()).unwrap(),
                        ..sum
                    })
                };
                let (new, old) = (of("be_green"), of("be_blue"));
                let tick = Tick { number: *number, new, old, latency: Latency::Unknown };
                judge.step(&tick).verdict() == Verdict::Rollback
            })
        }
    }

    #[test]
    fn a_visitor_who_failed_all_along_turns_no_release_back_and_excuses_none() {
        // By chance of the split it is on the new slot: without a word of who asks, the same version looks worse there.
        assert!(Site::new(false).turned_back(0).is_some_and(|seconds| seconds < 60));
        assert_eq!(Site::new(true).turned_back(0), None);
        // A version that fails for a fifth of its visitors is turned back no later.
        let [named, unnamed] = [true, false].map(|named| Site::new(named).turned_back(2).unwrap());
        assert!(named <= 10 && unnamed <= 10, "{named} {unnamed}");
    }

    #[test]
    fn whoever_failed_before_has_a_class_of_their_own_and_is_covered() {
        let mut site = Site::new(true);
        (0..60).for_each(|_| drop(site.second(16, 0)));
        let counted = site.second(32, 0);
        let seen = |class: &str| {
            let cells = counted.cells.iter().filter(|(key, _)| key.class.as_str() == class);
            cells.map(|(key, cell)| (key.backend.as_str(), cell.requests, cell.failures)).collect::<Vec<_>>()
        };
        assert_eq!(seen(FAILED_BEFORE), [("be_green", 1, 1)]);
        assert_eq!(seen("api"), [("be_blue", 91, 0), ("be_green", 9, 0)]);
        assert_eq!(site.tally.covered().into_values().sum::<u64>(), 61 * 100 + 49);
    }
}
