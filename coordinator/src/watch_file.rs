//! `[watch]` of an environment file: how long visitors are watched, and by what.

use pointsman_chassis::config::Span;
use pointsman_core::{OnFail, VerdictMode, VerdictPlan, WatchPlan};
use serde::Deserialize;

/// `[watch]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Watch {
    duration: Span,
    interval: Span,
    fail_after: u32,
    blind: Span,
    source: Source,
    verdict: Option<Mode>,
    min_watch: Option<Span>,
    max_watch: Option<Span>,
    after: Span,
    warm_up: Option<Span>,
    blip: Span,
    min_requests: u64,
    on_undecided: Option<Undecided>,
    limits: Vec<Limit>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            duration: Span::from_ms(300_000),
            interval: Span::from_ms(1_000),
            fail_after: 3,
            blind: Span::from_ms(30_000),
            source: Source::Lb,
            verdict: None,
            min_watch: None,
            max_watch: None,
            after: Span::from_ms(0),
            warm_up: None,
            blip: Span::from_ms(1_000),
            min_requests: 0,
            on_undecided: None,
            limits: Vec::new(),
        }
    }
}

/// Where signals come from. There is one place.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    Lb,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Act,
    Shadow,
    Off,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Undecided {
    Hold,
    Rollback,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Rollback,
    Hold,
    Warn,
}

impl From<Action> for OnFail {
    fn from(action: Action) -> Self {
        match action {
            Action::Rollback => Self::Rollback,
            Action::Hold => Self::Hold,
            Action::Warn => Self::Warn,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    name: LimitName,
    max: Most,
    #[serde(default = "rollback")]
    on_fail: Action,
}

fn rollback() -> Action {
    Action::Rollback
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum LimitName {
    ErrorRate,
    P99,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Most {
    Share(f64),
    Time(Span),
}

/// Least time of a watch that ends by a proof, where none is written: a minute of warm-up and caches.
const LEAST_MS: u64 = 60_000;
/// How long times are left out after visitors were moved, where nothing is written: what a cold cache takes to fill, and of a short
/// watch a tenth.
const WARM_UP_MS: u64 = 10_000;
/// Longest such time: who is slow for longer than that is slow.
const LONGEST_WARM_UP_MS: u64 = 300_000;
/// Longest failure that may be none.
const LONGEST_BLIP_S: u64 = 60;
/// How many such failures a watch has room for, at least: a bad version is noticed after two or three times that long.
const BLIPS_IN_A_WATCH: u64 = 10;
/// Shares that can be told apart from nothing, and from everything.
const SHARES: std::ops::RangeInclusive<f64> = 0.000_02..=0.5;

impl Watch {
    /// The readings of the gates.
    pub fn gates(&self) -> Result<WatchPlan, String> {
        if self.fail_after == 0 || self.interval.ms() == 0 {
            return Err("`watch.fail_after` and `watch.interval` must be at least 1".to_owned());
        }
        Ok(WatchPlan {
            duration_ms: self.duration.ms(),
            interval_ms: self.interval.ms(),
            fail_after: self.fail_after,
            blind_ms: self.blind.ms(),
        })
    }

    /// Whether the file leaves it to the load balancers whether visitors are heard.
    pub fn where_heard(&self) -> bool {
        self.verdict.is_none() && self.max_watch.is_none()
    }

    /// What the visitors' signals decide.
    pub fn verdict(&self) -> Result<VerdictPlan, String> {
        let Source::Lb = self.source;
        let mut plan = VerdictPlan {
            mode: match self.verdict {
                Some(Mode::Off) => VerdictMode::Off,
                Some(Mode::Shadow) => VerdictMode::Shadow,
                Some(Mode::Act) | None => VerdictMode::Act,
            },
            min_requests: self.min_requests,
            max_watch_ms: self.max_watch.map(Span::ms),
            after_ms: self.after.ms(),
            warm_up_ms: self.warm_up.map_or(WARM_UP_MS.min(self.duration.ms() / 10), Span::ms),
            undecided_turns_back: self.on_undecided == Some(Undecided::Rollback),
            ..VerdictPlan::default()
        };
        plan.min_watch_ms = match (self.min_watch, plan.max_watch_ms) {
            (Some(least), _) => Some(least.ms()),
            (None, longest_ms) => longest_ms.map(|longest_ms| longest_ms.min(LEAST_MS)),
        };
        if self.on_undecided.is_some() && self.max_watch.is_none() {
            return Err("`watch.on_undecided` needs `watch.max_watch`: without it a watch ends after its time, undecided or not".to_owned());
        }
        if let (Some(least), Some(longest)) = (plan.min_watch_ms, plan.max_watch_ms)
            && (least > longest || longest == 0)
        {
            return Err(
                "`watch.max_watch` must be as long as `watch.min_watch`, and longer than nothing".to_owned()
            );
        }
        if plan.warm_up_ms > LONGEST_WARM_UP_MS {
            return Err(
                "`watch.warm_up` must be at most \"5m\": nobody is judged by their times for so long"
                    .to_owned(),
            );
        }
        plan.blip_s = self.blip_s()?;
        for (index, limit) in self.limits.iter().enumerate() {
            if self.limits.iter().take(index).any(|earlier| earlier.name == limit.name) {
                return Err("`watch.limits` names a limit twice".to_owned());
            }
            limited(&mut plan, limit)?;
        }
        plan.params(0).map_err(|error| format!("`watch.limits`: {error}"))?;
        Ok(plan)
    }
}

impl Watch {
    /// How many seconds are judged as one.
    fn blip_s(&self) -> Result<u64, String> {
        let (blip_ms, blip_s) = (self.blip.ms(), self.blip.ms() / 1_000);
        if blip_ms % 1_000 != 0 || !(1..=LONGEST_BLIP_S).contains(&blip_s) {
            return Err("`watch.blip` must be whole seconds, \"1s\" to \"60s\"".to_owned());
        }
        let watched_ms = self.max_watch.unwrap_or(self.duration).ms();
        if blip_s > 1 && blip_ms.saturating_mul(BLIPS_IN_A_WATCH) > watched_ms {
            return Err(format!(
                "`watch.blip` must be at most a tenth of the watch: a bad version is noticed only after a few of them, and {} \
                 are watched",
                Span::from_ms(watched_ms)
            ));
        }
        Ok(blip_s)
    }
}

fn limited(plan: &mut VerdictPlan, limit: &Limit) -> Result<(), String> {
    match (limit.name, &limit.max) {
        (LimitName::ErrorRate, Most::Share(share)) if SHARES.contains(share) => {
            plan.errors_ppm = (share * 1e6).round() as u32;
            plan.on_errors = limit.on_fail.into();
            Ok(())
        }
        (LimitName::ErrorRate, _) => {
            Err("`max` of the limit `error-rate` must be a share, 0.00002 to 0.5: 0.01 is 1 %".to_owned())
        }
        (LimitName::P99, Most::Time(time)) if time.ms() > 0 => {
            plan.p99_ms = time.ms();
            plan.on_slowness = limit.on_fail.into();
            Ok(())
        }
        (LimitName::P99, _) => Err("`max` of the limit `p99` must be a time, as \"2s\"".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<VerdictPlan, String> {
        let watch: Watch = toml::from_str(text).map_err(|error| error.to_string())?;
        watch.gates()?;
        watch.verdict()
    }

    #[test]
    fn files_of_before_there_were_verdicts_watch_as_long_as_they_did() {
        let plan = parse("duration = \"5m\"\ninterval = \"1s\"\nfail_after = 3\nblind = \"30s\"").unwrap();
        assert_eq!(
            plan,
            VerdictPlan { mode: VerdictMode::Act, warm_up_ms: 10_000, ..VerdictPlan::default() }
        );
        assert!(!plan.must_decide());
        assert_eq!(parse("duration = \"20s\"").unwrap().warm_up_ms, 2_000);
    }

    #[test]
    fn everything_can_be_written() {
        let plan = parse(
            r#"
            source = "lb"
            min_watch = "60s"
            max_watch = "15m"
            min_requests = 500
            warm_up = "30s"
            blip = "5s"
            on_undecided = "rollback"
            limits = [
              { name = "error-rate", max = 0.02, on_fail = "hold" },
              { name = "p99", max = "1500ms", on_fail = "warn" },
            ]
            "#,
        )
        .unwrap();
        let expected = VerdictPlan {
            mode: VerdictMode::Act,
            min_watch_ms: Some(60_000),
            max_watch_ms: Some(900_000),
            min_requests: 500,
            warm_up_ms: 30_000,
            blip_s: 5,
            undecided_turns_back: true,
            errors_ppm: 20_000,
            on_errors: OnFail::Hold,
            p99_ms: 1_500,
            on_slowness: OnFail::Warn,
            ..VerdictPlan::default()
        };
        assert_eq!(plan, expected);
        assert!(plan.must_decide());
        assert_eq!(parse("max_watch = \"30s\"").unwrap().min_watch_ms, Some(30_000));
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("on_undecided = \"hold\"", "needs `watch.max_watch`"),
            ("min_watch = \"2m\"\nmax_watch = \"1m\"", "as long as"),
            ("max_watch = \"0s\"", "longer than nothing"),
            ("warm_up = \"6m\"", "at most \"5m\""),
            ("blip = \"0s\"", "whole seconds"),
            ("blip = \"1500ms\"", "whole seconds"),
            ("blip = \"61s\"\nduration = \"1h\"", "\"1s\" to \"60s\""),
            ("blip = \"31s\"", "a tenth of the watch"),
            ("blip = \"30s\"\nmin_watch = \"1m\"\nmax_watch = \"2m\"", "a tenth of the watch"),
            ("fail_after = 0", "at least 1"),
            ("source = \"prometheus\"", "unknown variant"),
            ("verdict = \"guess\"", "unknown variant"),
            ("limits = [{ name = \"p99\", max = 2.0 }]", "must be a time"),
            ("limits = [{ name = \"error-rate\", max = \"2s\" }]", "must be a share"),
            ("limits = [{ name = \"error-rate\", max = 1.5 }]", "must be a share"),
            ("limits = [{ name = \"p99\", max = \"2s\" }, { name = \"p99\", max = \"1s\" }]", "twice"),
            ("limits = [{ name = \"p95\", max = \"2s\" }]", "unknown variant"),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
