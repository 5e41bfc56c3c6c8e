//! Golden files of everything that is rendered: each case is a release or an environment as it can really be.

#[path = "goldens/compare.rs"]
mod compare;
#[path = "goldens/story.rs"]
mod story;
#[path = "goldens/world.rs"]
mod world;

use pointsman_core::{Code, Epoch, Event, Problem, Purpose, Reading, RequestKind, Step};
use pointsman_proto::{convert, v1};
use serde_json::Value;

use self::compare::{Cases, golden};
use self::story::{
    Story, T0, canary, check_failed, deploy, deploy_under_maintenance, drifted, first_backup, first_deploy,
    maintenance, plan, rollback, rollback_without_one, unhealthy, unreachable,
};
use self::world::{accepted, before, during, first_balancer, settled, silent};
use super::json;
use crate::exit::Exit;

fn watching() -> Story {
    Story::of(deploy()).until(Step::Watch).after_ms(41_000)
}

/// The checks fail three times in a row.
fn failing() -> Story {
    (0..3).fold(watching(), |story, _| story.read(Reading::Fail(check_failed())))
}

fn blind() -> Story {
    let blind = watching().read(Reading::Unknown(unreachable("lb2"))).after_ms(30_000);
    blind.held(unreachable("lb2"))
}

/// A check before the switch fails four times.
fn check_fails() -> Story {
    let story = Story::of(deploy()).until(Step::Check).failing_on(Step::Check, "lb1", check_failed());
    story.turned_back(check_failed())
}

fn held_on_the_way_back() -> Story {
    let story = failing().turned_back(check_failed());
    let story = story.failing_on(Step::RouteBack, "lb2", unreachable("lb2"));
    story.after_ms(30_000).held(unreachable("lb2"))
}

/// Links are led back, and the one host of the slot does not answer any more.
fn held_for_a_host() -> Story {
    let story = check_fails().confirmed(Step::Conceal);
    let story = story.failing_on(Step::LinkBack, "web2", unreachable("web2"));
    story.after_ms(30_000).held(unreachable("web2"))
}

fn half_a_page() -> Story {
    let story = Story::of(maintenance(true)).fenced();
    story.failing_on(Step::Maintain, "lb2", unreachable("lb2")).turned_back(unreachable("lb2"))
}

fn page_stuck() -> Story {
    let story = Story::of(maintenance(false)).fenced();
    story.failing_on(Step::Maintain, "lb1", unhealthy()).held(unhealthy())
}

/// Releases on their way.
fn running() -> Vec<(String, Story)> {
    let steps = deploy().steps();
    let in_steps = steps.iter().filter(|step| **step != Step::Watch).map(|step| {
        let story = Story::of(deploy()).until(*step).sent(*step).after_ms(700);
        (format!("deploy in {step}"), story)
    });
    let others = [
        ("deploy not begun", Story::of(deploy())),
        ("deploy staging again after a failure", {
            let story = Story::of(deploy()).until(Step::Stage).send(Step::Stage, "web2");
            story.failed(Step::Stage, "web2", unreachable("web2"))
        }),
        ("deploy half switched", {
            let story = Story::of(deploy()).until(Step::Switch).sent(Step::Switch);
            story.done(Step::Switch, "lb1").after_ms(3_000)
        }),
        ("deploy watched", watching()),
        ("deploy whose watch is blind", {
            watching().read(Reading::Unknown(unreachable("lb2"))).after_ms(12_000)
        }),
        ("deploy watched whose check warns", watching().warned()),
        ("deploy whose check holds it", {
            watching().read(Reading::Unknown(story::check_holds())).after_ms(12_000)
        }),
        ("canary watched", Story::of(canary()).split(1).after_ms(20_000)),
        ("canary half moved", {
            let story = Story::of(canary()).until(Step::Canary(2)).sent(Step::Canary(2));
            story.done(Step::Canary(2), "lb1").after_ms(300)
        }),
        ("deploy on its way back", failing().turned_back(check_failed()).sent(Step::RouteBack)),
        ("deploy cleaning up", check_fails().sent(Step::Conceal)),
        (
            "visitors whom no release accounts for on their way back",
            Story::of(story::gather()).until(Step::Switch).sent(Step::Switch),
        ),
        ("rollback in switch", Story::of(rollback(Some("77ab012"))).until(Step::Switch).sent(Step::Switch)),
        (
            "rollback from what fared badly in switch",
            Story::of(story::rollback_from_ill()).until(Step::Switch).sent(Step::Switch),
        ),
        ("maintenance going up", Story::of(maintenance(true)).fenced().sent(Step::Maintain)),
    ];
    in_steps.chain(others.map(|(name, story)| (name.to_owned(), story))).collect()
}

/// Releases that are over, or held.
fn ended() -> Vec<(&'static str, Story)> {
    let first = |story: Story| story.until(Step::Watch).read(Reading::Fail(check_failed()));
    let refused_rollback = || {
        let story = Story::of(rollback(Some("77ab012"))).fenced();
        story.failing_on(Step::Preflight, "lb1", unhealthy()).turned_back(unhealthy())
    };
    let failed_rollback = || {
        let story = Story::of(rollback(Some("77ab012"))).until(Step::Switch);
        story.failing_on(Step::Switch, "lb1", unhealthy()).turned_back(unhealthy()).all_back()
    };
    vec![
        ("deploy confirmed", Story::of(deploy()).watched()),
        (
            "deploy confirmed whose check warns",
            watching().warned().after_ms(300_000).tell(Event::WatchPassed),
        ),
        ("canary confirmed", Story::of(canary()).watched()),
        (
            "rollback without one that is out of service",
            Story::of(rollback_without_one()).until(Step::Switch).confirmed(Step::Switch),
        ),
        ("canary rolled back", {
            let story = (0..3)
                .fold(Story::of(canary()).split(1), |story, _| story.read(Reading::Fail(check_failed())));
            story.turned_back(check_failed()).all_back()
        }),
        ("canary paused", Story::of(canary()).split(2).paused(Some("a look"))),
        ("first deploy confirmed", Story::of(first_deploy()).watched()),
        ("first deploy rolled back", first(Story::of(first_deploy())).turned_back(check_failed()).all_back()),
        ("deploy under maintenance confirmed", Story::of(deploy_under_maintenance()).watched()),
        (
            "deploy under maintenance rolled back",
            first(Story::of(deploy_under_maintenance())).turned_back(check_failed()).all_back(),
        ),
        ("deploy rolled back by the watch", failing().turned_back(check_failed()).all_back()),
        ("deploy rolled back by a person", watching().stopped(RequestKind::Rollback).all_back()),
        ("deploy aborted by a check", check_fails().all_back()),
        (
            "deploy aborted by a person",
            Story::of(deploy()).until(Step::Drain).stopped(RequestKind::Abort).all_back(),
        ),
        (
            "deploy refused: an agent is silent",
            Story::of(deploy()).after_ms(5_000).turned_back(unreachable("lb2")),
        ),
        (
            "deploy refused: the route drifted",
            Story::of(deploy()).fenced().after_ms(5_000).turned_back(drifted()),
        ),
        ("deploy held in the watch", blind()),
        ("deploy held on the way back", held_on_the_way_back()),
        ("deploy held on the way back for a host", held_for_a_host()),
        (
            "deploy rolled back without one that is gone for good",
            held_on_the_way_back().left_out("lb2", "no power, and none to come"),
        ),
        (
            "deploy aborted without one that is gone for good",
            held_for_a_host().left_out("web2", "the disk is dead"),
        ),
        (
            "maintenance page taken down again without one that is gone for good",
            half_a_page()
                .failing_on(Step::Unmaintain, "lb2", unreachable("lb2"))
                .after_ms(30_000)
                .held(unreachable("lb2"))
                .left_out("lb2", "no power"),
        ),
        (
            "deploy paused before the switch",
            Story::of(deploy()).until(Step::Drain).paused(Some("the database team is not ready")),
        ),
        ("deploy paused in the watch", watching().paused(Some("complaints, looking into them"))),
        ("deploy paused half switched", {
            let story = Story::of(deploy()).until(Step::Switch).sent(Step::Switch);
            let story = story.done(Step::Switch, "lb1").requested(RequestKind::Pause, None);
            story.failed(Step::Switch, "lb2", unreachable("lb2")).held(story::pause(None))
        }),
        ("deploy paused on its way back", failing().turned_back(check_failed()).paused(None)),
        (
            "rollback confirmed",
            Story::of(rollback(Some("77ab012"))).until(Step::Switch).confirmed(Step::Switch),
        ),
        (
            "rollback to what nobody named",
            Story::of(rollback(None)).until(Step::Switch).confirmed(Step::Switch),
        ),
        (
            "visitors whom no release accounts for led back",
            Story::of(story::gather()).until(Step::Switch).confirmed(Step::Switch),
        ),
        (
            "visitors whom no release accounts for led back at another try",
            Story::of(story::gather())
                .until(Step::Switch)
                .failing_on(Step::Switch, "lb2", unreachable("lb2"))
                .turned_back(unreachable("lb2"))
                .all_back(),
        ),
        (
            "visitors whom no release accounts for not led back",
            Story::of(story::gather())
                .fenced()
                .failing_on(Step::Preflight, "lb1", story::drifted())
                .turned_back(story::drifted()),
        ),
        (
            "rollback confirmed from what fared badly",
            Story::of(story::rollback_from_ill()).until(Step::Switch).confirmed(Step::Switch),
        ),
        ("rollback refused", refused_rollback()),
        ("rollback failed and undone", failed_rollback()),
        ("maintenance page up", Story::of(maintenance(true)).fenced().confirmed(Step::Maintain)),
        (
            "maintenance page up, an old worker not told",
            Story::of(maintenance(true))
                .fenced()
                .confirmed_for_some(Step::Maintain, "old workers could not be seen"),
        ),
        (
            "rollback confirmed, and not kept by OPNsense yet",
            Story::of(rollback(Some("77ab012"))).until(Step::Switch).confirmed_unkept(
                Step::Switch,
                "OPNsense does not keep route `be_blue:be_green:0:41` yet: it refused the key (401)",
            ),
        ),
        ("maintenance page half up and taken down again", half_a_page().all_back()),
        ("maintenance page down", Story::of(maintenance(false)).fenced().confirmed(Step::Maintain)),
        ("maintenance page held half down", page_stuck()),
    ]
}

/// Why a release ended otherwise than it should, or is held: as `wait_for` finds it.
fn why(release: &v1::Release) -> Option<Problem> {
    release.held.clone().or_else(|| release.turned_back.clone()).and_then(convert::problem_from_wire)
}

#[test]
fn plans() {
    let sized = |plan: &pointsman_core::Plan| convert::plan_to_wire(plan, Some((1_284, 48_213_377)));
    let mut cases = Cases::default();
    for (name, plan) in [
        ("deploy", deploy()),
        ("deploy judged by more than a second at once", story::judged_by_blips()),
        ("canary", canary()),
        ("first deploy", first_deploy()),
        ("deploy under maintenance", deploy_under_maintenance()),
        ("rollback", rollback(Some("77ab012"))),
        ("rollback to what nobody named", rollback(None)),
        ("rollback of visitors whom no release accounts for", story::gather()),
        ("rollback without one that is out of service", rollback_without_one()),
        ("maintenance on", maintenance(true)),
        ("maintenance off", maintenance(false)),
    ] {
        cases.add(name, &super::plan(&sized(&plan)));
    }
    cases.add("nothing", &super::plan(&v1::Plan::default()));
    cases.check("plan.txt");
    golden_json("plan-deploy", &json::plan(&sized(&deploy()), "5a1f"));
    golden_json("plan-rollback", &json::plan(&convert::plan_to_wire(&rollback(None), None), "5a1f"));
}

/// What a command says that waited: standard output, then standard error, and the exit code of the deploy.
#[test]
fn endings() {
    let mut cases = Cases::default();
    for (name, story) in ended() {
        let release = story.wire();
        let exit = Exit::of_release(&release).unwrap();
        let problem = why(&release).map(|problem| super::problem(&problem)).unwrap_or_default();
        cases.add(
            &format!("{name} (exit {})", exit.code()),
            &format!("{}\n{problem}", super::ending(&release)),
        );
    }
    let (_, story) = ended().into_iter().find(|(name, _)| *name == "deploy confirmed").unwrap();
    let mut watched_on = story.wire();
    watched_on.watched_on_until_ms = watched_on.entered_at_ms + 3_600_000;
    cases.add("deploy confirmed, visitors are watched on", &super::ending(&watched_on));
    let refused = Story::of(first_backup()).after_ms(5_000).turned_back(unreachable("db1")).wire();
    cases.add("backup refused before the first release", &super::ending(&refused));
    for (name, story) in running() {
        let release = story.wire();
        assert_eq!(Exit::of_release(&release), None, "{name}");
    }
    cases.check("ending.txt");
}

#[test]
fn outcomes_as_json() {
    let wanted = [
        "deploy confirmed",
        "deploy rolled back by the watch",
        "deploy held in the watch",
        "deploy refused: an agent is silent",
    ];
    for (name, story) in ended().into_iter().filter(|(name, _)| wanted.contains(name)) {
        let release = story.wire();
        let exit = Exit::of_release(&release).unwrap();
        golden_json(&format!("outcome-{}", name.replace([':', ' '], "-")), &json::outcome(&release, exit));
    }
}

#[test]
fn what_is_said_when_leaving() {
    let environment = deploy().environment;
    let mut cases = Cases::default();
    for (name, exit) in [("time is up", Exit::TimedOut), ("detached", Exit::Detached)] {
        cases.add(name, &super::left(&environment, "4f2c1ab", None, exit));
    }
    cases.check("left.txt");
}

/// Every line that a follower sees of a release, in order.
#[test]
fn updates() {
    let restarted = Story::of(deploy()).until(Step::Activate).sent(Step::Activate);
    let restarted = restarted.after_ms(9_000).tell(Event::EpochTaken(Epoch(8))).fenced();
    let retried = Story::of(deploy()).until(Step::Stage).sent(Step::Stage);
    let retried = retried.failed(Step::Stage, "web2", unreachable("web2")).confirmed(Step::Stage);
    let resumed = blind().requested(RequestKind::Resume, Some("lb2 is back")).fenced();
    let late = Story::of(deploy()).until(Step::Switch).paused(None).after_ms(600_000);
    let late = late.requested(RequestKind::Resume, None).tell(Event::GatesExpired).confirmed(Step::Check);
    let slept = watching().after_ms(60_000);
    let slept = slept.clone().tell(Event::WatchMoved { until: slept.now.plus_ms(300_000) });
    let recovered =
        watching().read(Reading::Unknown(unreachable("lb2"))).read(Reading::Pass).after_ms(300_000);
    let mut stories = vec![
        ("a deploy goes well", Story::of(deploy()).watched()),
        ("a canary goes well", Story::of(canary()).watched()),
        ("a deploy is staged twice", retried),
        ("the coordinator restarts", restarted),
        ("a deploy is held and resumed", resumed.after_ms(300_000).tell(Event::WatchPassed)),
        ("the watch is blind for a moment", recovered.tell(Event::WatchPassed)),
        ("a deploy is paused until its checks are too old", late),
        ("the coordinator slept in the watch", slept),
        ("a check holds the watch", watching().read(Reading::Unknown(story::check_holds()))),
        ("a check warns in the watch", watching().warned().after_ms(300_000).tell(Event::WatchPassed)),
    ];
    stories.extend(ended().into_iter().filter(|(name, _)| !name.contains("confirmed")));
    let mut cases = Cases::default();
    for live in [false, true] {
        for (name, story) in &stories {
            let lines: Vec<String> =
                story.updates().iter().filter_map(|update| super::update(update, live)).collect();
            let name = format!("{name}{}", if live { ", on a terminal" } else { "" });
            cases.add(&name, &lines.join("\n"));
            if live {
                break;
            }
        }
    }
    cases.check("update.txt");
}

#[test]
fn moving_lines_and_heartbeats() {
    let mut cases = Cases::default();
    for (name, story) in running() {
        let last = story.updates().pop().unwrap();
        let text = format!("{}\n{}", super::moving(&last), super::heartbeat(&story.wire()));
        cases.add(&name, &text);
    }
    for (name, story) in ended().into_iter().filter(|(name, _)| name.contains("held")) {
        let last = story.updates().pop().unwrap();
        cases.add(name, &super::moving(&last));
    }
    let progress = v1::ReleaseUpdate {
        at_ms: T0.0,
        kind: "progress".to_owned(),
        step: "stage".to_owned(),
        host: "web2".to_owned(),
        detail: "31457280 of 48213377 bytes".to_owned(),
        ..Default::default()
    };
    assert_eq!(super::update(&progress, true), None);
    cases.add("a transfer", &super::moving(&progress));
    let dump = v1::ReleaseUpdate {
        step: "backup".to_owned(),
        host: "db".to_owned(),
        detail: "backup: 96 MiB dumped".to_owned(),
        ..progress
    };
    cases.add("a dump", &super::moving(&dump));
    cases.add("the same as a line of JSON", &super::json::progress(&dump).to_string());
    cases.check("moving.txt");
}

/// Environments that nothing runs in, well and unwell.
fn standings() -> Vec<(&'static str, v1::StatusReply)> {
    let changed = |change: &dyn Fn(&mut v1::StatusReply)| {
        let mut status = settled();
        change(&mut status);
        status
    };
    let page = |until_ms: u64, reason: &str| v1::Maintenance {
        on: true,
        since_ms: T0.0 - 900_000,
        by: "operator anna".to_owned(),
        reason: reason.to_owned(),
        until_ms,
    };
    let under = |page: v1::Maintenance| {
        let mut status = world::status(&before(), None, T0, "be_maint:be_blue:0:41");
        status.wanted_route = "be_maint:be_blue:0:41".to_owned();
        status.maintenance = Some(page);
        status
    };
    let trouble = Problem::new(Code::JournalUnwritable, "the journal cannot be read or written")
        .cause("disk I/O error")
        .hint("on the coordinator: `df -h /var/lib/pointsman-coordinator`");
    let older = Problem::new(
        Code::JournalBehind,
        "the agent has acted on journal entry 412, which this journal does not have",
    )
    .on(&story::host("lb1"))
    .hint(
        "this journal is a copy of an older one: look, and bring the newest back: `pointsman explain PM0718`; \
         if that is gone for good: `pointsman audit accept production --confirm production`",
    );
    let fenced = Problem::new(Code::Fenced, "order of epoch 7 refused: epoch 9 rules here")
        .on(&story::host("lb1"))
        .hint("another coordinator has taken over, or this one's journal is an old copy; stop this one");
    let broken = pointsman_core::invariants::problem(
        "invariant I6 is broken: two unfinished releases in `production`",
    )
    .in_environment(&pointsman_core::EnvironmentName::parse("production").unwrap());
    let hangs = Problem::new(Code::JournalSilent, "the journal's disk has not answered since 08:47:26 UTC")
        .cause("nothing was sent to it: nothing is recorded")
        .hint(
            "on the coordinator: `findmnt -T /var/lib/pointsman-coordinator`, `dmesg | tail`; \
             when the disk answers it goes on by itself",
        );
    let troubled = |status: &mut v1::StatusReply, problem: &Problem| {
        status.trouble = Some(convert::problem_to_wire(problem));
        status.trouble_since_ms = status.now_ms - 754_000;
    };
    vec![
        ("all is well", settled()),
        ("nothing was released yet", {
            let mut status = world::status(&Default::default(), None, T0, "be_maint:be_maint:0:0");
            status
                .agents
                .iter_mut()
                .filter_map(|agent| agent.web.as_mut())
                .for_each(|web| web.current.clear());
            status
        }),
        ("no way back is known", changed(&|status| status.previous = None)),
        (
            "visitors whom no release accounts for",
            world::status(&accepted(), None, T0, "be_blue:be_green:10:40"),
        ),
        (
            "one load balancer drifted",
            changed(&|status| {
                let found = first_balancer(status);
                found.route = "be_green:be_green:0:999".to_owned();
                found.route_on_disk.clone_from(&found.route);
            }),
        ),
        (
            "the map file differs",
            changed(&|status| {
                first_balancer(status).route_on_disk = "be_green:be_blue:0:39".to_owned();
            }),
        ),
        (
            "OPNsense does not keep the route yet",
            changed(&|status| {
                let found = first_balancer(status);
                found.route_on_disk.clear();
                found.unkept = "OPNsense does not keep route `be_blue:be_green:0:40` yet: no clear answer from OPNsense at 10.0.0.1".to_owned();
            }),
        ),
        ("the map file is gone", changed(&|status| first_balancer(status).route_on_disk.clear())),
        (
            "an old worker is stale",
            changed(&|status| {
                first_balancer(status).stale_workers = vec!["2114: be_green:be_blue:0:39".to_owned()];
            }),
        ),
        (
            "a server is down",
            changed(&|status| {
                first_balancer(status).backends.iter_mut().for_each(|backend| backend.servers_up = 0);
            }),
        ),
        (
            "a load balancer is silent",
            changed(&|status| {
                status.agents[1] = silent("lb2", "lb-agent", "");
            }),
        ),
        (
            "certificates of pointsman's own end",
            changed(&|status| {
                let in_days = |days: i64| i64::try_from(status.now_ms / 1_000).unwrap() + days * 86_400;
                let ends = [in_days(20), in_days(6), in_days(400), in_days(-3)];
                status.certificate_ends_s = ends[0];
                for (agent, end_s) in status.agents.iter_mut().zip(&ends[1..]) {
                    agent.certificate_ends_s = *end_s;
                }
            }),
        ),
        (
            "a web host is silent",
            changed(&|status| {
                status.agents[3] = silent("web2", "web-agent", "green");
            }),
        ),
        (
            "a load balancer with a name of one letter",
            changed(&|status| {
                status.agents[0].host = "a".to_owned();
                first_balancer(status).route_on_disk.clear();
            }),
        ),
        ("maintenance", under(page(T0.0 + 900_000, "database upgrade"))),
        ("maintenance without end or reason", under(page(0, ""))),
        ("maintenance overdue", under(page(T0.0 - 300_000, "database upgrade"))),
        (
            "a maintenance file is left over",
            changed(&|status| {
                status.agents[2].web.as_mut().unwrap().maintenance_file = true;
            }),
        ),
        (
            "nobody is served",
            changed(&|status| {
                status.agents.iter_mut().filter_map(|agent| agent.balancer.as_mut()).for_each(|found| {
                    found.backends.iter_mut().for_each(|backend| backend.servers_up = 0);
                });
            }),
        ),
        (
            "the journal is an old one, and visitors are elsewhere",
            changed(&|status| {
                troubled(status, &older);
                status.agents.iter_mut().filter_map(|agent| agent.balancer.as_mut()).for_each(|found| {
                    found.route = "be_green:be_blue:0:57".to_owned();
                    found.route_on_disk.clone_from(&found.route);
                });
            }),
        ),
        (
            "no load balancer can be read",
            changed(&|status| {
                troubled(status, &trouble);
                for (index, host) in ["lb1", "lb2"].into_iter().enumerate() {
                    status.agents[index] = silent(host, "lb-agent", "");
                }
            }),
        ),
        ("the coordinator is in trouble", changed(&|status| troubled(status, &trouble))),
        ("the journal's disk hangs", {
            let mut status = during(&before(), &Story::of(deploy()).until(Step::Switch).sent(Step::Switch));
            troubled(&mut status, &hangs);
            status
        }),
        ("the journal lost its end", changed(&|status| troubled(status, &older))),
        ("another coordinator took over", changed(&|status| troubled(status, &fenced))),
        ("a rule of the engine is broken", changed(&|status| troubled(status, &broken))),
        ("an older coordinator is in trouble", {
            let mut status = settled();
            status.trouble = Some(convert::problem_to_wire(&trouble));
            status
        }),
        ("the journal lost its end in the middle of a release", {
            let mut status = during(&before(), &Story::of(deploy()).until(Step::Switch).sent(Step::Switch));
            troubled(&mut status, &older);
            status
        }),
    ]
}

#[test]
fn statuses() {
    let mut cases = Cases::default();
    for (name, status) in standings() {
        cases.add(name, &super::status(&status));
    }
    let stood = |name: &str| match name {
        name if name.starts_with("first") => Default::default(),
        name if name.starts_with("visitors whom no release accounts for") => accepted(),
        _ => before(),
    };
    for (name, story) in running() {
        cases.add(&name, &super::status(&during(&stood(&name), &story)));
    }
    for (name, story) in ended() {
        let standing = stood(name);
        cases.add(name, &super::status(&during(&standing, &story)));
    }
    cases.check("status.txt");
    for name in [
        "all is well",
        "nothing was released yet",
        "a load balancer is silent",
        "visitors whom no release accounts for",
        "maintenance",
        "a rule of the engine is broken",
    ] {
        let (_, status) = standings().into_iter().find(|(known, _)| *known == name).unwrap();
        golden_json(&format!("status-{}", name.replace(' ', "-")), &json::status(&status));
    }
    golden_json("status-deploy-watched", &json::status(&during(&before(), &watching())));
}

#[test]
fn traffics() {
    let mut cases = Cases::default();
    for (name, status) in standings() {
        cases.add(name, &super::traffic(&status));
    }
    for (name, story) in running().into_iter().filter(|(name, _)| name.contains("switch")) {
        cases.add(&name, &super::traffic(&during(&before(), &story)));
    }
    cases.check("traffic.txt");
    golden_json("traffic", &json::traffic(&settled()));
}

#[test]
fn maintenances() {
    let mut cases = Cases::default();
    let all = standings();
    for (name, status) in all.iter().filter(|(name, _)| name.contains("maintenance") || name.contains("well"))
    {
        cases.add(name, &super::maintenance(status));
    }
    cases.check("maintenance.txt");
    for (name, file) in [("maintenance", "maintenance-up"), ("all is well", "maintenance-down")] {
        let (_, status) = all.iter().find(|(known, _)| *known == name).unwrap();
        golden_json(file, &json::maintenance(status));
    }
}

#[test]
fn histories() {
    let mut cases = Cases::default();
    cases.add("nothing", &super::history(&[]));
    let releases: Vec<v1::Release> =
        ended().iter().chain(&[("running", watching())]).map(|(_, story)| story.wire()).collect();
    cases.add("one of each", &super::history(&releases));
    cases.check("history.txt");
    golden_json("history-empty", &json::history(&[]));
    let story = Story::of(plan("r1", Purpose::Rollback { artifact: None, to: None }, "green"));
    golden_json("history-one", &json::history(&[story.until(Step::Switch).confirmed(Step::Switch).wire()]));
}

fn finding(subject: &str, verdict: &str, what: &str, problem: Option<&Problem>) -> v1::Finding {
    v1::Finding {
        subject: subject.to_owned(),
        verdict: verdict.to_owned(),
        what: what.to_owned(),
        problem: problem.map(convert::problem_to_wire),
        ..Default::default()
    }
}

/// A finding of a load balancer's own checks.
fn check(check: &str, verdict: &str, what: &str, why: &str, fix: &str) -> v1::Finding {
    v1::Finding {
        check: check.to_owned(),
        why: why.to_owned(),
        fix: fix.to_owned(),
        ..finding("lb1", verdict, what, None)
    }
}

#[test]
fn what_the_doctor_finds() {
    let drift = Problem::new(Code::RouteDrift, "the map file holds `be_green:be_blue:0:39`")
        .hint("a reload would move visitors: see `pointsman explain PM0105`");
    let silent = unreachable("lb2");
    let well = vec![
        finding("coordinator", "ok", "journal whole and writable", None),
        finding("coordinator", "ok", "certificate ends in 311 days", None),
        finding("lb1", "ok", "lb-agent 0.1.0 answers", None),
        finding("lb1", "ok", "HAProxy 3.2.4 routes by `be_blue:be_green:0:40`", None),
    ];
    let warned = [well.clone(), vec![finding("web1", "warn", "disk: 7 % free", None)]].concat();
    let one =
        [vec![finding("lb1", "fail", "map file and HAProxy differ", Some(&drift))], warned.clone()].concat();
    let two = [vec![finding("lb2", "fail", &silent.message, Some(&silent))], one.clone()].concat();
    let not_asked = [well.clone(), vec![check_unknown("preflight", "HAProxy was not looked at")]].concat();
    let balancer = vec![
        finding("lb1", "ok", "lb-agent 0.1.0 answers", None),
        check("version", "ok", "HAProxy 2.6.12-1+deb12u3", "", ""),
        check(
            "idle-close-on-response",
            "fail",
            "`option idle-close-on-response` is not in effect for `frontend fe` (/etc/haproxy/haproxy.cfg:40)",
            "a reload loses requests of clients that reuse a connection",
            "add to `defaults` (/etc/haproxy/haproxy.cfg:21):\n  option idle-close-on-response",
        ),
        check_unknown("socket-mode", "the socket cannot be looked at: permission denied"),
        check("map-loaded", "ok", "`/var/lib/pointsman/route.map` is loaded", "", ""),
        check(
            "cookie-persistence",
            "warn",
            "/etc/haproxy/haproxy.cfg:71: `cookie SRV insert` pins visitors to a server",
            "they stay on the old slot",
            "remove at /etc/haproxy/haproxy.cfg:71:\n  cookie SRV insert",
        ),
    ];
    let of_database = |check: v1::Finding| v1::Finding { subject: "db".to_owned(), ..check };
    let database = [
        well.clone(),
        vec![
            of_database(check("database-tools", "ok", "pg_dump (PostgreSQL) 15.18", "", "")),
            of_database(check(
                "database-role",
                "warn",
                "`postgres` is a superuser",
                "a right that is missing is met in the middle of a release",
                "the script `database-role.sql` makes a role with less power",
            )),
        ],
    ];
    let database = database.concat();
    let cause = "HAProxy's socket does not answer";
    let down = ["version", "socket-level", "map-loaded"].map(|name| check_unknown(name, cause));
    let down =
        [well.clone(), down.to_vec(), vec![check_unknown("other-sockets", "cannot be listed")]].concat();
    let on_web = |finding: v1::Finding| v1::Finding { subject: "web1".to_owned(), ..finding };
    let unit = on_web(check("activate-unit", "ok", "unit `app.service` may be restarted", "", ""));
    let hook = on_web(check("activate-hook", "ok", "hook `warm-up` runs `/usr/local/bin/warm-up`", "", ""));
    let activation = [well.clone(), vec![unit, hook]].concat();
    let environment = "production".parse().unwrap();
    let mut cases = Cases::default();
    for (name, findings, folded) in [
        ("all is well", &well, Some(&environment)),
        ("a warning", &warned, Some(&environment)),
        ("one bad", &one, Some(&environment)),
        ("two bad", &two, Some(&environment)),
        ("one unknown", &not_asked, Some(&environment)),
        ("a load balancer among all", &balancer, Some(&environment)),
        ("a load balancer alone", &balancer, None),
        ("a database", &database, Some(&environment)),
        ("a load balancer that is down", &down, Some(&environment)),
        ("units and hooks", &activation, Some(&environment)),
        ("nothing", &vec![], None),
    ] {
        cases.add(name, &super::findings(findings, folded));
    }
    cases.check("doctor.txt");
    golden_json("doctor", &json::findings(&two));
    golden_json("doctor-lb", &json::findings(&balancer));
    golden_json("doctor-empty", &json::findings(&[]));
}

fn check_unknown(name: &str, what: &str) -> v1::Finding {
    check(name, "unknown", what, "what was not looked at may stand in the way", "")
}

fn audited(findings: Vec<v1::Finding>) -> v1::VerifyJournalReply {
    v1::VerifyJournalReply {
        entries: 412,
        head_hash: vec![0x9c; 32],
        first_at_ms: T0.0 - 86_400_000,
        last_at_ms: T0.0,
        findings,
    }
}

#[test]
fn what_an_audit_finds() {
    let broken = Problem::new(Code::JournalCorrupt, "journal entry 7 was changed after it was written")
        .hint("do not release; compare with a backup of the journal: `pointsman explain PM0703`");
    let cut =
        Problem::new(Code::JournalBehind, "agent `lb1` knows entry 420 that this journal does not have")
            .hint("this journal is a copy of an older one: bring the newest back before releasing");
    let silent = unreachable("lb1");
    let whole =
        finding("journal", "ok", "412 entries, each as it was written; the last is 9c9c9c9c9c9c", None);
    let damaged = "cannot be trusted: only its first 6 entries are what was written";
    let damaged = finding("journal", "fail", damaged, Some(&broken));
    let agrees = finding("web1", "ok", "agrees up to entry 410", None);
    let behind = "knows entry 410 as it stands here; what is wrong lies before it";
    let behind = finding("web1", "unknown", behind, None);
    let ahead = finding("lb1", "fail", "knows entry 420 that this journal does not have", Some(&cut));
    let environment = deploy().environment;
    let mut cases = Cases::default();
    for (name, findings) in [
        (
            "all is well",
            vec![whole.clone(), finding("lb1", "ok", "agrees up to entry 412", None), agrees.clone()],
        ),
        ("an entry was changed", vec![damaged, behind]),
        ("an agent knows more", vec![whole.clone(), ahead.clone(), agrees.clone()]),
        (
            "an agent is silent",
            vec![whole.clone(), finding("lb1", "unknown", "cannot be asked", Some(&silent)), agrees.clone()],
        ),
    ] {
        cases.add(name, &super::audit(&environment, &audited(findings)));
    }
    let empty = finding("journal", "ok", "holds no entries yet", None);
    let empty = v1::VerifyJournalReply { findings: vec![empty], ..Default::default() };
    cases.add("nothing was recorded yet", &super::audit(&environment, &empty));
    cases.check("audit.txt");
    golden_json("audit", &json::audit(&environment, &audited(vec![whole, ahead, agrees]), Exit::Held));
}

#[test]
fn problems() {
    let lost = Problem::new(Code::AnswerLost, "step `switch` was not answered within 12000 ms")
        .aftermath(pointsman_core::Aftermath::Unknown)
        .retry_useful()
        .on(&story::host("lb1"));
    let hostile = Problem::new(Code::HookFailed, "hook `warm-up` failed")
        .aftermath(pointsman_core::Aftermath::Changed)
        .cause("\u{1b}[31mred\u{1b}[0m\nand a second line\u{7}");
    let mut cases = Cases::default();
    for (name, file, problem) in [
        ("on a host, with cause and hint", Some("problem-check-failed"), check_failed()),
        ("without a hint of its own", Some("problem-answer-lost"), lost),
        ("with text from outside", Some("problem-hook-failed"), hostile),
        ("with ENV in its hint", None, drifted()),
    ] {
        let text = super::problem(&problem);
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        cases.add(name, &text);
        if let Some(file) = file {
            golden_json(file, &json::problem(&problem));
        }
    }
    cases.check("problem.txt");
}

/// A second of two load balancers: blue serves, green has a tester and an error.
fn traffic_tick() -> v1::TrafficTick {
    use pointsman_core::RouteEpoch;
    use pointsman_core::signal::{Cell, CellKey, Ending, Retries};
    let cell = |backend: &str, epoch, class: &str, times: &[u64], failures: u64| {
        let mut cell = Cell::default();
        let none = Retries::default();
        times.iter().for_each(|ms| cell.count(Ending::Answered, 200, Some(*ms), none));
        let failed = Ending::Failed { unconnected: false };
        (0..failures)
            .for_each(|_| cell.count(failed, 500, Some(2), Retries { count: 1, redispatched: false }));
        let key = CellKey {
            backend: backend.parse().unwrap(),
            epoch: RouteEpoch(epoch),
            class: class.parse().unwrap(),
        };
        Some(convert::cell_to_wire(&key, &cell))
    };
    let times: Vec<u64> = (0..300).map(|number| 3 + number % 40).chain([1_204; 6]).collect();
    let of = |release: &str, cell| v1::TrafficCell { release: release.to_owned(), cell };
    let slot = |slot: &str, cells: Vec<v1::TrafficCell>, retries| v1::SlotTraffic {
        slot: slot.to_owned(),
        backend: format!("be_{slot}"),
        cells,
        retries,
        counters: None,
        coverage: Some(v1::SignalCoverage { seen: 1_000, expected: 1_000 }),
        probes: (slot == "green").then(|| v1::SignalProbes {
            requests: 3,
            failures: 1,
            ..Default::default()
        }),
    };
    v1::TrafficTick {
        environment: "production".to_owned(),
        at_ms: T0.0,
        span_ms: 1_000,
        slots: vec![
            slot(
                "blue",
                vec![
                    of("77ab012", cell("be_blue", 38, "other", &[9], 0)),
                    of("9c01d2e", cell("be_blue", 40, "api", &times, 0)),
                    of("9c01d2e", cell("be_blue", 40, "other", &[5; 20], 0)),
                ],
                0,
            ),
            slot("green", vec![of("4f2c1ab", cell("be_green", 41, "other", &[7, 8], 1))], 1),
            slot("canary", Vec::new(), 0),
        ],
        balancers: vec!["lb1".to_owned(), "lb2".to_owned()],
        coverage: Some(v1::SignalCoverage { seen: 3_290, expected: 3_290 }),
        latency_usable: true,
        ..Default::default()
    }
}

fn idle(tick: &mut v1::TrafficTick) {
    for slot in &mut tick.slots {
        slot.cells.clear();
        slot.retries = 0;
    }
}

fn traffic_ticks() -> Vec<(&'static str, v1::TrafficTick)> {
    let changed = |change: fn(&mut v1::TrafficTick)| {
        let mut tick = traffic_tick();
        change(&mut tick);
        tick
    };
    vec![
        ("two load balancers", traffic_tick()),
        (
            "lines are lost",
            changed(|tick| {
                tick.coverage = Some(v1::SignalCoverage { seen: 3_256, expected: 3_290 });
                tick.latency_usable = false;
                tick.latency_unusable_because = "3256 of 3290 access lines came, 99 % needed".to_owned();
                tick.broken_lines = 34;
            }),
        ),
        (
            "lines of one slot are lost",
            changed(|tick| {
                tick.slots[1].coverage = Some(v1::SignalCoverage { seen: 5, expected: 20 });
                tick.latency_usable = false;
                tick.latency_unusable_because =
                    "5 of 20 access lines of `be_green` came, 99 % needed".to_owned();
            }),
        ),
        (
            "a load balancer is silent",
            changed(|tick| {
                drop(tick.balancers.pop());
                tick.missing = vec![convert::problem_to_wire(&unreachable("lb2"))];
                tick.latency_usable = false;
                tick.latency_unusable_because = "no signals from lb2".to_owned();
            }),
        ),
        (
            "nothing is known",
            changed(|tick| {
                idle(tick);
                tick.balancers.clear();
                tick.missing = vec![convert::problem_to_wire(&unreachable("lb1"))];
                tick.coverage = None;
                tick.latency_usable = false;
                tick.latency_unusable_because = "no signals from lb1".to_owned();
            }),
        ),
        (
            "the maintenance page is up",
            changed(|tick| {
                idle(tick);
                tick.maintenance_pages = 120;
            }),
        ),
    ]
}

/// `traffic watch`, as lines, as a block, and as JSON.
#[test]
fn traffic_watch() {
    let (mut lines, mut blocks, mut documents) = (Cases::default(), Cases::default(), Vec::new());
    for (name, tick) in traffic_ticks() {
        lines.add(name, &super::tick_lines(&tick).unwrap());
        blocks.add(name, &super::tick_block(&tick).unwrap());
        documents.push(super::tick_json(&tick).unwrap());
    }
    lines.check("traffic-watch-lines.txt");
    blocks.check("traffic-watch-block.txt");
    golden_json("traffic-watch", &Value::Array(documents));
}

/// What no coordinator can have sent is refused, not shown.
#[test]
fn traffic_that_cannot_be() {
    let mut tick = traffic_tick();
    tick.slots[0].cells[0].cell.as_mut().unwrap().failures = 1_000;
    assert_eq!(super::tick_lines(&tick).unwrap_err().code, Code::MessageInvalid);
}

/// Every code: how a command ends that meets it, and how a deploy ends that was refused because of it.
#[test]
fn exit_codes() {
    let mut text = String::from("code    command  refused deploy  title\n");
    for code in Code::ALL {
        let problem = Problem::new(*code, "x");
        let refused = v1::Release {
            outcome: "refused".to_owned(),
            turned_back: Some(convert::problem_to_wire(&problem)),
            ..Default::default()
        };
        let (alone, of_deploy) = (Exit::of_problem(&problem), Exit::of_release(&refused).unwrap());
        text.push_str(&format!("{code}  {:<7}  {:<14}  {}\n", alone.code(), of_deploy.code(), code.title()));
    }
    golden("exit-codes.txt", &text);
}

/// Lengths of time, bytes and moments at the borders of their units.
#[test]
fn quantities() {
    let mut text = String::new();
    for ms in [0, 1, 999, 1_000, 1_099, 59_999, 60_000, 61_000, 3_599_999, 3_600_000, 90_061_000] {
        text.push_str(&format!("{ms} ms: {}\n", super::span(ms)));
    }
    for us in [0, 1, 999, 1_000, 9_999, 10_000, 999_999, 1_000_000, 61_000_000] {
        text.push_str(&format!("{us} us: {}\n", super::lines::took(us)));
    }
    for count in [0, 999, 1_000, 999_999, 1_000_000, 999_999_999, 1_000_000_000, 44_120_551_424] {
        text.push_str(&format!("{count} bytes: {}\n", pointsman_core::bytes(count)));
    }
    for ms in [0, T0.0, u64::MAX] {
        text.push_str(&format!("at {ms}: {}\n", super::time(ms)));
    }
    golden("quantities.txt", &text);
}

#[track_caller]
fn golden_json(name: &str, document: &Value) {
    golden(&format!("json/{name}.json"), &format!("{document:#}"));
}

/// Certificates of the site: well, ending, ended, not taken, not known; and what a deploy says.
#[test]
fn certificates() {
    let now_s = i64::try_from(T0.0 / 1000).unwrap();
    let good = v1::CertificateFacts {
        path: "/etc/haproxy/certs/www.pem".to_owned(),
        names: vec!["example.org".to_owned(), "www.example.org".to_owned()],
        serial: "36F43008C3AB3A4E184B14A4268BFC939E52B104".to_owned(),
        not_before: now_s - 30 * 86_400,
        not_after: now_s + 60 * 86_400,
        served: true,
        ..Default::default()
    };
    let problem = Problem::new(
        Code::SiteCertificateUnfit,
        "the certificate cannot be used: it was issued before the one in place",
    );
    let not_taken = Some(convert::problem_to_wire(&problem));
    let watched = "/var/lib/pointsman/renewed/www".to_owned();
    let of = |found: Vec<v1::CertificateFacts>| {
        let mut status = settled();
        first_balancer(&mut status).certificates = found;
        status
    };
    let mut silent_one = of(vec![good.clone()]);
    silent_one.agents[1] = silent("lb2", "lb-agent", "");
    let mut cases = Cases::default();
    for (name, status) in [
        ("one is well, the other may renew none", of(vec![good.clone()])),
        ("ends soon", of(vec![v1::CertificateFacts { not_after: now_s + 86_400, ..good.clone() }])),
        ("has ended", of(vec![v1::CertificateFacts { not_after: now_s - 1, ..good.clone() }])),
        ("not what is served", of(vec![v1::CertificateFacts { served: false, ..good.clone() }])),
        (
            "not taken from its folder",
            of(vec![v1::CertificateFacts { problem: not_taken.clone(), watched, ..good.clone() }]),
        ),
        (
            "nothing is known",
            of(vec![v1::CertificateFacts {
                path: good.path.clone(),
                problem: not_taken,
                ..Default::default()
            }]),
        ),
        ("a load balancer is silent", silent_one),
    ] {
        cases.add(name, &super::certificates(&status));
    }
    let facts = pointsman_chassis::site_certificate::LeafFacts {
        names: good.names.iter().cloned().collect(),
        serial: good.serial.clone(),
        sha1: String::new(),
        not_before: good.not_before,
        not_after: good.not_after,
        needs_chain: true,
        key: pointsman_chassis::site_certificate::KeyKind::Ecdsa,
    };
    cases.add("about to be deployed", &super::certificate(&facts, &[]));
    let drop = ["old.example.org", "*.example.net"].map(|name| name.parse().unwrap());
    cases.add("about to be deployed without names of before", &super::certificate(&facts, &drop));
    let deployed = |host: &str, already| {
        v1::CertificateDeployed {
        host: host.to_owned(),
        already,
        detail: "`/etc/haproxy/certs/www.pem` with serial 36F4 read back, seen by a new handshake for `www.example.org`".to_owned(),
    }
    };
    let reply = v1::DeployCertificateReply { balancers: vec![deployed("lb1", true), deployed("lb2", false)] };
    cases.add("deployed", &super::certificate_deployed(&reply));
    cases.check("certificates.txt");
    golden_json("certificates", &json::certificates(&of(vec![good])));
    golden_json("certificate-deployed", &json::certificate_deployed(&deploy().environment, &facts, &reply));
}

/// A check that was made on a host.
fn made(host: &str, name: &str, verdict: &str, took_ms: u64, what: &str) -> v1::CheckMade {
    let (name, verdict, what) = (name.to_owned(), verdict.to_owned(), what.to_owned());
    v1::CheckMade { host: host.to_owned(), seen: Some(v1::CheckSeen { name, verdict, took_ms, what }) }
}

#[test]
fn checks_made_now() {
    let well = v1::MakeChecksReply {
        slot: "green".to_owned(),
        release: "4f2c1ab".to_owned(),
        checks: vec![
            made("lb1", "frontend", "passed", 38, "200 in 12 ms, 14 assets"),
            made("lb1", "wfs", "passed", 1_204, "12 layers, 1 feature"),
            made("web2", "health", "passed", 3, "200 in 3 ms"),
        ],
        silent: Vec::new(),
    };
    let mut bad = well.clone();
    bad.checks.push(made(
        "lb1",
        "login",
        "failed",
        31,
        "step 2: POST /login expected status 200, got 403: 61 bytes, not shown",
    ));
    bad.checks.push(made("lb1", "feature-creation", "not-made", 0, "not made: `login` did not pass"));
    let mut silent = well.clone();
    silent.checks.truncate(2);
    silent.silent.push(convert::problem_to_wire(&unreachable("web2")));
    let nothing = v1::MakeChecksReply { slot: "green".to_owned(), ..Default::default() };
    let environment = "production".parse().unwrap();
    let mut cases = Cases::default();
    for (name, reply) in
        [("all is well", &well), ("two bad", &bad), ("one silent", &silent), ("none", &nothing)]
    {
        cases.add(name, &super::checks(reply));
        golden_json(&format!("checks {name}").replace(' ', "-"), &json::checks(&environment, reply));
    }
    cases.check("checks.txt");
}

fn point(name: &str, text: &str, verdict: &str, evidence: &[&str]) -> v1::ChecklistPoint {
    v1::ChecklistPoint {
        name: name.to_owned(),
        text: text.to_owned(),
        manual: matches!(verdict, "open") || name == "phone",
        verdict: verdict.to_owned(),
        evidence: evidence.iter().map(|line| (*line).to_owned()).collect(),
        at_ms: if evidence.is_empty() { 0 } else { 1_795_000_000_000 },
    }
}

#[test]
fn checklists() {
    let mixed = v1::ChecklistReply {
        environment: "production".to_owned(),
        release: "4f2c1ab".to_owned(),
        outcome: "rolled-back".to_owned(),
        points: vec![
            point(
                "health",
                "Health checks successful",
                "passed",
                &["health before the switch on web2: passed, 200 in 3 ms (3 ms)"],
            ),
            point(
                "error-rate",
                "Error rate < 1%",
                "failed",
                &["1.31 %: 131 of 10000 requests failed in 60 s"],
            ),
            point(
                "p99",
                "Response time < 2s (p99)",
                "no-data",
                &["no data: nothing can be said of latencies in 60 s"],
            ),
            point(
                "frontend",
                "Frontend loads",
                "failed",
                &[
                    "frontend before the switch on lb1: passed, 200 in 12 ms, 14 assets (38 ms)",
                    "frontend after the switch on lb1: failed, / expected a page with `div#app`, got `<h1>*busy*</h1> & \"more\"` (4 ms)",
                ],
            ),
            point("alerts", "Monitoring alerts silent", "no-data", &["no check is configured for it"]),
            point("phone", "Nobody has called", "passed", &["ticked by operator anna: quiet until noon"]),
            point("shop", "An order by hand", "open", &[]),
        ],
    };
    let mut whole = mixed.clone();
    whole.outcome = "confirmed".to_owned();
    whole.points.retain(|point| point.verdict == "passed");
    let mut running = mixed.clone();
    running.outcome.clear();
    let mut cases = Cases::default();
    for (name, list) in [("mixed", &mixed), ("whole", &whole), ("running", &running)] {
        cases.add(name, &super::checklist(list));
        cases.add(&format!("{name}, Markdown"), &super::checklist_markdown(list));
        cases.add(&format!("{name}, JUnit"), &super::checklist_junit(list));
        golden_json(&format!("checklist-{name}"), &json::checklist(list));
    }
    cases.check("checklist.txt");
}

#[test]
fn limits() {
    let entry = |host: &str, key: &str, rate| v1::RateEntry {
        host: host.to_owned(),
        table: "st_rl".to_owned(),
        key: key.to_owned(),
        rate,
        period_ms: 10_000,
        expires_ms: 599_000,
    };
    let entries = vec![entry("lb1", "192.0.2.4", 1_204), entry("lb2", "2001:db8::17", 3)];
    let found = v1::RateLimitsReply { entries: entries.clone(), found: 2, ..Default::default() };
    let unread = v1::RateLimitsReply {
        entries: vec![entry("lb1", "a key of an API", 12)],
        found: 1,
        unread: vec![v1::Problem {
            code: "PM0125".to_owned(),
            host: "lb1".to_owned(),
            message: "HAProxy has no table `st_gone` of `http_req_rate`".to_owned(),
            causes: vec!["its answer: it is `No such table`".to_owned()],
            hint: "compare `rate_limit_tables` in lb-agent.toml with the `stick-table` lines of haproxy.cfg"
                .to_owned(),
            ..Default::default()
        }],
    };
    let address: std::net::IpAddr = "192.0.2.4".parse().unwrap();
    let nothing = v1::RateLimitsReply::default();
    let mut cases = Cases::default();
    cases.add("two", &super::limits(&found));
    cases.add("more than are sent", &super::limits(&v1::RateLimitsReply { found: 4_711, ..found.clone() }));
    cases.add("nobody", &super::limits(&nothing));
    cases.add("a table that is not there", &super::limits(&unread));
    cases.add("unblocked", &super::unblocked(address, &nothing));
    cases.add("unblocked, and there again", &super::unblocked(address, &found));
    cases.check("limits.txt");
    golden_json("limits", &json::limits(&deploy().environment, &found));
    golden_json("unblocked", &json::unblocked(&deploy().environment, address, &nothing));
}
