//! `config check`: whether the environment's file is valid and in effect, and whether monitoring services give its checks
//! something to judge. Each is asked once. pointsman changes nothing by it; a check whose steps write does so here, too.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use pointsman_chassis::config::Span;
use pointsman_checks::Kind;
use pointsman_core::{Check, CheckName, CheckVerdict, Code, Problem, Route, SlotPlan, VerifyLevel};
use pointsman_proto::{convert, v1};

use crate::check_now;
use crate::diagnose::finding;
use crate::environment::Environment;
use crate::office::Office;

/// Every finding, the good ones too.
pub async fn check_config(office: &Office) -> Vec<v1::Finding> {
    let running = office.environment();
    let path = running.file.clone();
    let abrupt = |error| Problem::new(Code::ConfigInvalid, "reading it ended abruptly").because(&error);
    let read = tokio::task::spawn_blocking(move || Environment::read(&path)).await;
    let subject = format!("{}.toml", running.name);
    match read.map_err(abrupt).and_then(|read| read) {
        Ok(file) => {
            let mut findings = vec![in_effect(&subject, file == *running)];
            findings.extend(of_queries(&file));
            findings.extend(of_backups(&file));
            findings.extend(of_monitoring(office, &file.checks).await);
            findings
        }
        Err(problem) => vec![v1::Finding {
            why: "the coordinator goes on with what it has read, and would not start again".to_owned(),
            ..finding(&subject, "fail", problem.message.clone(), Some(&problem))
        }],
    }
}

fn in_effect(subject: &str, as_read: bool) -> v1::Finding {
    match as_read {
        true => finding(subject, "ok", "valid, and in effect".to_owned(), None),
        false => v1::Finding {
            why: "the coordinator reads it when it starts".to_owned(),
            fix: "on the coordinator, also in the middle of a release: `systemctl restart pointsman-coordinator`"
                .to_owned(),
            ..finding(subject, "warn", "valid, and not in effect yet".to_owned(), None)
        },
    }
}

/// Backups of which only the digest is known are never given up: none of them counts as good.
fn of_backups(file: &Environment) -> Option<v1::Finding> {
    let database = file.database.as_ref().filter(|database| database.verify == VerifyLevel::Digest)?;
    let found = "`verify = \"digest\"`: backups are written and not read again".to_owned();
    Some(v1::Finding {
        why: "only backups that were read count for `keep`: none is ever removed, until the folder has no room and no release is made"
            .to_owned(),
        fix: "`verify = \"read\"` or `\"restore-test\"` in `[database]`".to_owned(),
        ..finding(database.host.as_str(), "warn", found, None)
    })
}

/// What queries say without being asked: of which slot, of when, and of what. None of it makes a file invalid; whoever writes them may
/// mean it.
fn of_queries(file: &Environment) -> Vec<v1::Finding> {
    let watched = file.checks.iter().filter(|check| check.after_switch);
    let metrics = watched.filter_map(|check| match pointsman_checks::parsed_alone(check)?.kind {
        Kind::Metric(metric) => Some((check, metric.query)),
        _ => None,
    });
    let shortest_ms = shortest_watch_ms(file);
    metrics.flat_map(|(check, query)| of_query(check, &query, shortest_ms)).collect()
}

/// The time after which some visitors' watch may be over, in milliseconds.
fn shortest_watch_ms(file: &Environment) -> u64 {
    let fixed = file.splits.iter().map(|split| split.hold_ms).chain([file.watch.duration_ms]);
    let whole_ms = match file.verdict.max_watch_ms.filter(|_| file.verdict.must_decide()) {
        Some(longest_ms) => longest_ms,
        None => fixed.min().unwrap_or_default(),
    };
    file.verdict
        .min_watch_ms
        .filter(|_| file.verdict.acts())
        .map_or(whole_ms, |least_ms| least_ms.min(whole_ms))
}

fn of_query(check: &Check, query: &str, shortest_ms: u64) -> Vec<v1::Finding> {
    let warns = |what: &str, why: String, fix: String| v1::Finding {
        why,
        fix,
        ..finding("checks", "warn", format!("check `{}` {what}", check.name), None)
    };
    let names_slot = pointsman_checks::names_slot(query);
    let range_ms = pointsman_checks::longest_range_ms(query).filter(|range_ms| *range_ms > shortest_ms);
    let mixed = (!names_slot).then(|| {
        warns(
            "does not say of which slot",
            "its number mixes both slots: with few visitors on the new one, what fails there hardly shows"
                .to_owned(),
            "give the query a label of the slot, as `slot=\"{{slot}}\"`".to_owned(),
        )
    });
    let looks_back = range_ms.map(|range_ms| {
        let (range, shortest) = (Span::from_ms(range_ms), Span::from_ms(shortest_ms));
        warns(
            &format!("looks back over {range}, and the shortest watch takes {shortest}"),
            "all through that watch its number is still of the version before, too".to_owned(),
            format!("shorten the range in the query, or watch for {range} or longer"),
        )
    });
    let counter = pointsman_checks::counter_as_it_stands(query).map(|counter| {
        warns(
            &format!("reads `{counter}` as it stands, which by its name is a counter"),
            "a counter counts since its exporter was started: what happens during a watch hardly moves it"
                .to_owned(),
            format!("ask for its growth: `sum(rate({counter}[1m]))`; a gauge of that name is well as it is"),
        )
    });
    let buckets = pointsman_checks::loses_buckets(query).then(|| {
        warns(
            "asks for a quantile of buckets without their label `le`",
            "Prometheus has no number for that: the check never knows, and every watch is held for it"
                .to_owned(),
            "keep the label: `histogram_quantile(0.99, sum by (le) (rate(…_bucket[1m])))`".to_owned(),
        )
    });
    mixed.into_iter().chain(looks_back).chain(counter).chain(buckets).collect()
}

fn asks_monitoring(check: &Check) -> bool {
    pointsman_checks::parsed_alone(check)
        .is_some_and(|spec| matches!(spec.kind, Kind::Metric(_) | Kind::Alerts(_)))
}

async fn of_monitoring(office: &Office, checks: &[Check]) -> Vec<v1::Finding> {
    let asking: Vec<&Check> = checks.iter().filter(|check| asks_monitoring(check)).collect();
    if asking.is_empty() {
        return Vec::new();
    }
    let Some(slot) = serving(office).await else { return before_any_release(office, &asking).await };
    // What they come after is made too.
    let chains = asking.iter().filter_map(|check| check_now::chosen(checks, &check.name).ok()).flatten();
    let needed: BTreeSet<CheckName> = chains.map(|check| check.name).collect();
    let made: Vec<Check> = checks.iter().filter(|check| needed.contains(&check.name)).cloned().collect();
    let made = check_now::make_of(office, &slot, &made).await;
    let asks = |seen: &v1::CheckSeen| asking.iter().any(|check| check.name.as_str() == seen.name);
    let seen = made.checks.into_iter().filter_map(|made| Some((made.host, made.seen.filter(asks)?)));
    seen.map(|(host, seen)| of_check(&host, &seen)).chain(unasked(made.silent)).collect()
}

/// Where no slot serves yet: what asks for none is asked once, the rest once for each slot. That there is no data of a slot then is
/// no fault of a query; that it is refused is.
async fn before_any_release(office: &Office, asking: &[&Check]) -> Vec<v1::Finding> {
    let environment = office.environment();
    let (alone, after): (Vec<&Check>, Vec<&Check>) =
        asking.iter().partition(|check| pointsman_checks::after_of(check).is_ok_and(|after| after.is_none()));
    let left = |check: &&Check| {
        let what = format!("no slot serves: check `{}`, which comes after another, is not made", check.name);
        finding("checks", "unknown", what, None)
    };
    let mut findings: Vec<v1::Finding> = after.iter().map(left).collect();
    // All slots at once: there is time for the checks of one place.
    let made = environment.slots.values().enumerate().map(|(at, slot)| {
        let of_it =
            alone.iter().filter(|check| at == 0 || differs_by_slot(check, environment.slots.values()));
        let checks: Vec<Check> = of_it.map(|check| (*check).clone()).collect();
        // None of them goes through HAProxy, and it leads nobody to a slot: they are made beside the page that stands.
        let page = SlotPlan { backend: environment.maintenance_backend.clone(), ..slot.clone() };
        async move {
            let made = match checks.is_empty() {
                true => v1::MakeChecksReply::default(),
                false => check_now::make_of(office, &page, &checks).await,
            };
            (slot, made)
        }
    });
    for (slot, made) in join_all(made).await {
        findings.extend(made.checks.iter().filter_map(|made| {
            let seen = made.seen.as_ref()?;
            let does_not_know = seen.verdict == CheckVerdict::NotMade.as_str();
            Some(match does_not_know && pointsman_checks::lacks_data(&seen.what) {
                true => {
                    let what = format!(
                        "check `{}` can be asked, and knows nothing of `{}` yet, as nothing was released: {}",
                        seen.name, slot.name, seen.what
                    );
                    finding(&made.host, "ok", what, None)
                }
                false => of_check(&made.host, seen),
            })
        }));
        findings.extend(unasked(made.silent));
    }
    findings
}

/// Whether a check asks something else for each slot.
fn differs_by_slot<'a>(check: &Check, mut slots: impl Iterator<Item = &'a SlotPlan>) -> bool {
    let of = |slot: &SlotPlan| pointsman_checks::bind(check, None, &slot.name).spec;
    let first = slots.next().map(of);
    slots.any(|slot| Some(of(slot)) != first)
}

/// Where checks could not be made at all.
fn unasked(silent: Vec<v1::Problem>) -> impl Iterator<Item = v1::Finding> {
    let silent = silent.into_iter().filter_map(convert::problem_from_wire);
    silent.map(|problem| finding("checks", "unknown", problem.message.clone(), Some(&problem)))
}

/// The slot that serves; before the first release, the one that the load balancers route to.
async fn serving(office: &Office) -> Option<SlotPlan> {
    let environment = office.environment();
    if let Some(live) = office.standing().live {
        return environment.slots.get(&live.slot).cloned();
    }
    let agents = office.look().await;
    let routes = agents.iter().filter_map(|agent| Route::parse(&agent.balancer.as_ref()?.route).ok());
    routes.into_iter().find_map(|route| environment.slot_behind(&route.stable).cloned())
}

fn of_check(host: &str, seen: &v1::CheckSeen) -> v1::Finding {
    let what = |says: &str| format!("check `{}` {says}: {}", seen.name, seen.what);
    match seen.verdict.as_str() {
        "passed" => finding(host, "ok", what("would pass now"), None),
        "failed" => finding(host, "warn", what("would fail now"), None),
        _ => v1::Finding {
            why: "what is not known turns no release back, and lets none go on".to_owned(),
            fix: format!("look at it alone: `pointsman check ENV --name {}`", seen.name),
            ..finding(host, "fail", what("does not know"), None)
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::{CheckFrom, CheckSpec};

    #[test]
    fn a_query_of_no_slot_or_of_before_the_watch_is_told() {
        let check = Check {
            name: "errors".parse().unwrap(),
            from: CheckFrom::Balancers,
            before_switch: false,
            after_switch: true,
            spec: CheckSpec::parse("{}").unwrap(),
            timeout_ms: 1,
            patience_ms: 0,
            bound_ms: 1,
        };
        let told = |query: &str| -> Vec<String> {
            of_query(&check, query, 120_000).into_iter().map(|finding| finding.what).collect()
        };
        assert!(told("sum(rate(e{slot=\"{{ slot }}\"}[2m]))").is_empty());
        let slot = "check `errors` does not say of which slot";
        let back = "check `errors` looks back over 5m, and the shortest watch takes 2m";
        assert_eq!(told("sum(rate(e[1m]))"), [slot]);
        assert_eq!(told("sum(rate(e{slot=\"{{slot}}\"}[5m])) / sum(rate(r{slot=\"{{slot}}\"}[1m]))"), [back]);
        assert_eq!(told("sum(rate(e[5m]))"), [slot, back]);
        let of_slot = |query: &str| told(&query.replace('#', "{slot=\"{{slot}}\"}"));
        assert_eq!(
            of_slot("sum(e_total#) / sum(r_total#)"),
            ["check `errors` reads `e_total` as it stands, which by its name is a counter"]
        );
        assert_eq!(
            of_slot("histogram_quantile(0.99, sum(rate(t_bucket#[1m])))"),
            ["check `errors` asks for a quantile of buckets without their label `le`"]
        );
    }

    #[test]
    fn a_query_without_an_answer_is_worse_than_one_that_objects() {
        let seen = |verdict: &str| v1::CheckSeen {
            name: "errors".to_owned(),
            verdict: verdict.to_owned(),
            what: "no data".to_owned(),
            ..Default::default()
        };
        let verdict = |seen: &v1::CheckSeen| of_check("lb1", seen).verdict;
        assert_eq!(verdict(&seen("passed")), "ok");
        assert_eq!(verdict(&seen("failed")), "warn");
        assert_eq!(verdict(&seen("not-made")), "fail");
        assert_eq!(of_check("lb1", &seen("not-made")).what, "check `errors` does not know: no data");
    }
}
