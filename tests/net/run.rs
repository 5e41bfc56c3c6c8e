//! One run: a release, its faults, their end, and then the rules.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use pointsman_core::{Outcome, Plan};
use tempfile::TempDir;
use turmoil::Sim;

use crate::chance::Chance;
use crate::coordinator::{self, Place};
use crate::fault::{Fault, faults};
use crate::hands::{Pace, WorldHands};
use crate::release::{self, CENTRE};
use crate::world::{Deed, World};
use crate::{agent, identities, rules};

/// How finely time is cut: messages arrive and timers fire on its multiples.
const TICK: Duration = Duration::from_millis(10);
/// Everything is whole again after this time, in milliseconds, and stays so.
const WHOLE_MS: u64 = 13_500;
/// A release is over so long after that: it goes back once at most, each step of it within its bounds.
const OVER_MS: u64 = 60_000;
/// What is still on its way, or at work, has arrived so long after the release is over.
const SETTLED_MS: u64 = 4_000;

/// How a run went.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    /// How the release ended.
    pub outcome: Outcome,
    /// When, in simulated milliseconds.
    pub over_ms: u64,
    /// A person had to resume it.
    pub resumed: bool,
}

/// A folder for databases in memory, where there is one: no power fails here, and flushing to a disk would take most
/// of the time of a run.
pub fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::tempdir_in(base).unwrap()
}

struct Scene {
    plan: Plan,
    place: Place,
    world: World,
    faults: Vec<Fault>,
    pace: Pace,
    latency_ms: u64,
    sick_from_ms: Option<u64>,
}

fn scene(seed: u64, folder: &TempDir) -> Scene {
    let place = Place(folder.path().to_owned());
    let (_, artifact) = release::stored_artifact(&place.artifacts());
    let mut chance = Chance::new(seed, "scene");
    let plan = release::plan(&mut chance, artifact);
    let sick_from_ms = chance.in_percent(25).then(|| chance.between(1_000, 9_000));
    let world = World::before(&plan, sick_from_ms);
    let before_ms = chance.one_of(&[20, 300, 2_500]);
    let pace = Pace { seed, before_ms, after_ms: chance.one_of(&[0, 100, 1_500]) };
    let latency_ms = chance.one_of(&[10, 50, 300]);
    let faults = faults(&mut chance, &plan);
    Scene { plan, place, world, faults, pace, latency_ms, sick_from_ms }
}

fn simulation<'a>(seed: u64, scene: &Scene) -> Sim<'a> {
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(TICK)
        .enable_random_order()
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(scene.latency_ms))
        .simulation_duration(Duration::MAX)
        .build();
    let hosts: Vec<_> = scene.plan.hosts().cloned().collect();
    for host in hosts {
        let (world, pace, folder) = (scene.world.clone(), scene.pace, scene.place.0.clone());
        let name = host.to_string();
        sim.host(name.clone(), move || {
            agent::run(name.clone(), folder.clone(), WorldHands::new(host.clone(), world.clone(), pace))
        });
    }
    let (place, plan, world) = (scene.place.clone(), scene.plan.clone(), scene.world.clone());
    sim.host(CENTRE, move || coordinator::run(place.clone(), plan.clone(), world.clone()));
    sim
}

/// What is still to break and to be mended.
struct Script<'s> {
    scene: &'s Scene,
    begun: Vec<bool>,
    ended: Vec<bool>,
}

impl<'s> Script<'s> {
    fn new(scene: &'s Scene) -> Self {
        let none = vec![false; scene.faults.len()];
        Self { scene, begun: none.clone(), ended: none }
    }

    /// Breaks and mends what is due. When `all_ends`, nothing breaks any more and everything is mended.
    fn play(&mut self, sim: &mut Sim<'_>, now_ms: u64, all_ends: bool) {
        let steps = self.scene.faults.iter().zip(self.begun.iter_mut().zip(&mut self.ended));
        for (fault, (begun, ended)) in steps {
            if !*begun && !all_ends && now_ms >= fault.from_ms {
                *begun = true;
                self.scene.world.note_at(now_ms, Deed::Fault(format!("{:?} {}", fault.kind, fault.host)));
                fault.begin(sim);
            }
            if *begun && !*ended && (all_ends || now_ms >= fault.to_ms) {
                *ended = true;
                self.scene.world.note_at(now_ms, Deed::Fault(format!("no {:?} {}", fault.kind, fault.host)));
                fault.end(sim);
            }
        }
    }
}

/// Makes everything whole, also where one fault was mended over another.
fn make_whole(sim: &Sim<'_>, plan: &Plan) {
    for host in plan.hosts() {
        sim.release(CENTRE, host.as_str());
        sim.repair(CENTRE, host.as_str());
    }
}

fn play(sim: &mut Sim<'_>, scene: &Scene) -> Result<u64, String> {
    let (mut script, mut over_ms, mut whole) = (Script::new(scene), None, false);
    loop {
        let now_ms = u64::try_from(sim.elapsed().as_millis()).unwrap();
        if scene.world.over() && over_ms.is_none() {
            over_ms = Some(now_ms);
        }
        let all_ends = now_ms >= WHOLE_MS || over_ms.is_some();
        script.play(sim, now_ms, all_ends);
        if all_ends && !whole {
            whole = true;
            make_whole(sim, &scene.plan);
            scene.world.note_at(now_ms, Deed::Fault("everything is whole".to_owned()));
            scene.world.send_for_a_person();
        }
        match over_ms {
            Some(over_ms) if now_ms >= over_ms + SETTLED_MS => return Ok(over_ms),
            None if now_ms >= WHOLE_MS + OVER_MS => {
                return Err(format!("the release is not over after {now_ms} ms"));
            }
            _ => {}
        }
        sim.step().map_err(|error| format!("a host failed: {error}"))?;
    }
}

/// Runs the release of a seed to its end and checks the rules. A failure tells the whole story.
pub fn run(seed: u64) -> Result<Ran, String> {
    identities::ready();
    let folder = folder();
    let scene = scene(seed, &folder);
    let mut sim = simulation(seed, &scene);
    let played = play(&mut sim, &scene);
    drop(sim);
    let world = &scene.world;
    let broken = match &played {
        Ok(_) => rules::broken(&scene.plan, world, &scene.place),
        Err(stuck) => vec![stuck.clone()],
    };
    match (played, world.state().and_then(|state| state.outcome())) {
        (Ok(over_ms), Some(outcome)) if broken.is_empty() => {
            let resumed = world.log().iter().any(|(_, deed)| matches!(deed, Deed::Resumed));
            Ok(Ran { outcome, over_ms, resumed })
        }
        _ => Err(story(seed, &scene, &broken)),
    }
}

fn story(seed: u64, scene: &Scene, broken: &[String]) -> String {
    let mut text = format!("seed {seed}: {}\n", broken.join("; "));
    let Scene { plan, world, faults, pace, latency_ms, sick_from_ms, .. } = scene;
    writeln!(text, "  {:?}, {pace:?}, latency {latency_ms} ms, sick from {sick_from_ms:?}", plan.purpose)
        .unwrap();
    for fault in faults {
        writeln!(text, "  fault: {fault}").unwrap();
    }
    for (ms, deed) in world.log() {
        writeln!(text, "  {ms:>6} ms  {deed}").unwrap();
    }
    for (name, host) in world.hosts() {
        writeln!(text, "  {name}: {host:?}").unwrap();
    }
    let stands = world.state().map(|state| (state.phase, state.turned_back));
    writeln!(text, "  the release: {stands:?}").unwrap();
    text
}
