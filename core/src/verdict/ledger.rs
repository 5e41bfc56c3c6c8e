//! What is known of one metric: its cells, its sums, and how a tick enters them.

use super::bytes::{Reader, Writer};
use super::cell::{Cell, Prior, Weights};
use super::company::Company;
use super::dispersion::Dispersion;
use super::params::Rule;
use super::promotion::{Comparison, against_rate};
use super::ratio::{self, Blame};
use super::sick::Lately;
use super::tick::{Sample, Slot};

/// A stretch of ticks of which only the last has data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    /// The last tick before it, counted from 1; 0 before the first.
    pub from: u64,
    /// Its last tick.
    pub to: u64,
    /// Ticks that are judged as one.
    pub blip: u64,
}

impl Stretch {
    /// How many times `blip` ticks were full after tick `tick`.
    fn full(&self, tick: u64) -> u64 {
        tick.checked_div(self.blip).unwrap_or(tick)
    }
}

/// The e-values of one metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Values {
    pub limit: f64,
    pub floor: f64,
    pub ratio: f64,
    pub old_limit: f64,
    /// Against "the new slot is no worse than what served before", where that was over the limit.
    pub excused: Option<f64>,
}

/// What is known of one metric.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Ledger {
    pub limit: Cell,
    floor: Cell,
    ratio: Cell,
    old_limit: Cell,
    excused: Cell,
    /// What is not yet judged, because it waits for the other ticks that are judged with it.
    pending: Sample,
    pub total: Sample,
    pub comparison: Comparison,
    pub lately: Lately,
    /// How the new slot's bad requests came, by the limit and by the comparison.
    bunches: [Dispersion; 2],
    /// How the requests of the new slot come, and those of the old one.
    company: [Company; 2],
}

impl Ledger {
    /// Takes in the sample of the last tick of a stretch.
    pub fn step(&mut self, stretch: &Stretch, sample: &Sample, rule: &Rule, weights: &Weights) {
        let (closed, before) = (stretch.full(stretch.from), stretch.full(stretch.to.saturating_sub(1)));
        if before > closed {
            self.close(closed.saturating_add(1), self.lately.new_share(0), rule, weights);
            self.skip(closed.saturating_add(1), before, weights);
        }
        self.pending = self.pending.plus(*sample);
        let full = stretch.full(stretch.to);
        if full > before {
            let silent = stretch.to.saturating_sub(stretch.from).saturating_sub(1);
            self.close(full, self.lately.new_share(silent), rule, weights);
        }
        self.total = self.total.plus(*sample);
        let [limit, baseline] = &mut self.bunches;
        limit.add_exact(sample.new.requests, sample.new.over_limit);
        baseline.add_exact(sample.new.requests, sample.new.over_baseline);
        self.comparison.step(sample, rule.bounds.ratio);
        self.lately.step(stretch.to.saturating_sub(stretch.from), sample);
        // Without traffic the e-value of the old slot stands still: then it says nothing about now.
        if sample.old.requests > 0.0 {
            self.lately.note_old(self.old_limit.value(full, weights));
        }
    }

    /// Judges what is pending, as the cells' tick `at`, where the new slot usually has such a share of the requests.
    fn close(&mut self, at: u64, usual: Option<f64>, rule: &Rule, weights: &Weights) {
        let Sample { new, old } = self.pending;
        let [of_new, of_old] = &mut self.company;
        let (new_part, old_part) = (of_new.part(new.requests), of_old.part(old.requests));
        let of = |share: Option<f64>, part: f64| share.map(|share| (share, part));
        let over_limit = of(new.share_over_limit(), new_part);
        self.limit.step_part(at, over_limit, &rule.limit, weights);
        self.floor.step_part(at, of(new.share_over_baseline(), new_part), &rule.floor, weights);
        self.old_limit.step_part(at, of(old.share_over_limit(), old_part), &rule.limit, weights);
        if let Some(excused) = &rule.excused {
            self.excused.step_part(at, over_limit, excused, weights);
        }
        of_new.step(new.requests);
        of_old.step(old.requests);
        match Blame::of(&self.pending) {
            Some(blame) => {
                // A lone request beside a page of the other slot's is blamed for more than it did: what fails alone came alone.
                let usual = usual.filter(|_| new_part < 1.0).unwrap_or(0.0);
                let grid = ratio::relative(blame.new_share.max(usual), rule.bounds.ratio);
                self.ratio.step(at, Some(blame.share()), &grid, weights);
            }
            None => self.ratio.step(at, None, &rule.limit, weights),
        }
        self.pending = Sample::default();
    }

    fn skip(&mut self, from: u64, to: u64, weights: &Weights) {
        let Self { limit, floor, ratio, old_limit, excused, .. } = self;
        for cell in [limit, floor, ratio, old_limit, excused] {
            cell.skip(from, to, weights);
        }
    }

    /// The e-values after the cells' tick `at`.
    pub fn values(&self, at: u64, rule: &Rule, weights: &Weights) -> Values {
        Values {
            limit: self.limit.value_by(&Prior::WORST_FIRST, at, weights),
            floor: self.floor.value(at, weights),
            ratio: self.ratio.value(at, weights),
            old_limit: self.old_limit.value(at, weights),
            excused: rule.excused.map(|_| self.excused.value(at, weights)),
        }
    }

    /// How much bad requests come in bunches, by the limit and by the comparison: as before the release, or as seen on the
    /// new slot if that is worse. Bunches can be too rare to have been seen before.
    pub fn dispersions(&self, rule: &Rule) -> (f64, f64) {
        let [limit, baseline] = self.bunches.map(|bunches| bunches.seen());
        (rule.limit_dispersion.max(limit), rule.baseline_dispersion.max(baseline))
    }

    /// Evidence that the new slot keeps to the limit.
    pub fn within_limit(&self, rule: &Rule, dispersion: f64) -> f64 {
        let new = self.total.new;
        against_rate(new.over_limit, new.requests, rule.bounds.limit, dispersion)
    }

    /// Evidence that the new slot is under the floor or no worse than the old slot. Being bad takes both, so the mean of
    /// the two is evidence against it.
    pub fn not_worse(&self, rule: &Rule, dispersion: f64) -> f64 {
        let new = self.total.new;
        let floor = against_rate(new.over_baseline, new.requests, rule.bounds.floor, dispersion);
        f64::midpoint(floor, self.comparison.value(dispersion))
    }

    pub fn write(&self, writer: &mut Writer) {
        for cell in [&self.limit, &self.floor, &self.ratio, &self.old_limit, &self.excused] {
            writer.reals(cell.evidence);
        }
        for slot in [self.pending.new, self.pending.old, self.total.new, self.total.old] {
            writer.reals([slot.requests, slot.over_limit, slot.over_baseline]);
        }
        writer.reals(self.comparison.sums);
        let Lately { new_failed, new_requests, old_failed, old_requests, struck_left } = self.lately;
        writer.reals([new_failed, new_requests, old_failed, old_requests]);
        writer.integer(struck_left);
        self.bunches.iter().for_each(|bunches| writer.reals(bunches.numbers()));
        self.company.iter().for_each(|company| writer.reals([company.requests, company.squares]));
    }

    /// Reads what was written, by a version that wrote `company` or by one before it, which knew of none.
    pub fn read(reader: &mut Reader<'_>, with_company: bool) -> Option<Self> {
        let limit = Cell { evidence: reader.amounts()? };
        let floor = Cell { evidence: reader.amounts()? };
        let ratio = Cell { evidence: reader.amounts()? };
        let old_limit = Cell { evidence: reader.amounts()? };
        let excused = Cell { evidence: reader.amounts()? };
        let pending = sample(reader)?;
        let total = sample(reader)?;
        let comparison = Comparison { sums: reader.reals()? };
        let [new_failed, new_requests, old_failed, old_requests] = reader.amounts()?;
        let struck_left = reader.integer()?;
        let lately = Lately { new_failed, new_requests, old_failed, old_requests, struck_left };
        let bunches =
            [Dispersion::from_numbers(reader.amounts()?), Dispersion::from_numbers(reader.amounts()?)];
        let mut company = [Company::default(); 2];
        for company in company.iter_mut().filter(|_| with_company) {
            let [requests, squares] = reader.amounts()?;
            *company = Company { requests, squares };
        }
        Some(Self {
            limit,
            floor,
            ratio,
            old_limit,
            excused,
            pending,
            total,
            comparison,
            lately,
            bunches,
            company,
        })
    }
}

fn sample(reader: &mut Reader<'_>) -> Option<Sample> {
    let mut slot = || {
        let [requests, over_limit, over_baseline] = reader.amounts()?;
        Some(Slot { requests, over_limit, over_baseline })
    };
    Some(Sample { new: slot()?, old: slot()? })
}
