//! A simulator of the whole way out: the log, its readers, the routes and a scripted publisher, on a fake disk and a
//! clock that stands still unless all wait for it. Everything runs on one thread, so a run is a function of its seed:
//! `FOREBAY_SIM_SEED` replays one, and prints what happened; `FOREBAY_SIM_SEEDS` says how many are run, and
//! `FOREBAY_SIM_FROM` with which it begins.

mod life;
mod shape;
mod sink;
mod weather;
mod world;

use std::{
    collections::BTreeMap,
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::runtime;

use self::{
    life::{Ending, Plan, live},
    shape::Shape,
    weather::damage,
    world::{Step, Weather, World},
};
use crate::{
    job::JobMetrics,
    spool::testing::{Random, disk::FakeDisk, stepped::StepPlace},
    telemetry::Metrics,
};

const SEEDS: u64 = 2000;
/// Once all is well, all is settled within this.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// What a run came to.
#[derive(Default, PartialEq)]
struct Outcome {
    problem: Option<String>,
    trace: Vec<Step>,
    files: Vec<(String, usize)>,
    /// What happened, how often.
    fired: BTreeMap<&'static str, u64>,
}

struct Simulation {
    random: Random,
    disk: FakeDisk,
    world: Arc<Mutex<World>>,
    metrics: Arc<JobMetrics>,
}

impl Simulation {
    fn new(seed: u64, metrics: Arc<JobMetrics>) -> Self {
        let mut random = Random::new(seed);
        let shape = Shape::new(&mut random);
        shape.read.set();
        shape.route.set();
        let disk = FakeDisk::new(seed ^ 0x5EED);
        // Else the header of a filler may be torn, which is called damage.
        disk.behave(|behaviour| behaviour.whole_sectors = !shape.is_damaged);
        Self {
            random,
            disk,
            world: Arc::new(Mutex::new(World::new(shape, seed))),
            metrics,
        }
    }

    /// Some lives, cut short or not, with all that can go wrong; then one in which nothing does.
    fn run(&mut self) -> Result<(), String> {
        for _ in 0..1 + self.random.below(4) {
            self.live_and_die()?;
        }
        self.live(Plan {
            lasts: SETTLED_WITHIN,
            ending: Ending::Settled,
            weather_ms: None,
            sends_ms: None,
        })?;
        self.disk.kill_process();
        self.world.lock().require_complete();
        // What is settled stays so.
        let handed_over = self.count("handed over");
        self.live(Plan {
            lasts: Duration::from_secs(2),
            ending: Ending::Stop(Duration::ZERO),
            weather_ms: None,
            sends_ms: None,
        })?;
        let again = self.count("handed over") - handed_over;
        let mut world = self.world.lock();
        world.require(again == 0, || {
            format!("{again} messages are published again after an orderly stop")
        });
        world.violation.take().map_or(Ok(()), Err)
    }

    fn count(&self, what: &str) -> usize {
        let world = self.world.lock();
        world.trace.iter().filter(|(_, step, ..)| *step == what).count()
    }

    fn live_and_die(&mut self) -> Result<(), String> {
        let random = &mut self.random;
        let power_loss_in = random.one_in(2).then(|| random.below(600));
        let sync_failure_in = random.one_in(3).then(|| random.below(40));
        let fault_one_in = [0, 0, 0, 100, 1000][random.below(5) as usize];
        let lasts_ms = [50, 500, 4000, 40_000][random.below(4) as usize];
        let plan = Plan {
            lasts: Duration::from_millis(random.below(lasts_ms)),
            ending: match random.below(3) {
                0 => Ending::Stop(Duration::from_millis(random.below(3000))),
                _ => Ending::Cut,
            },
            weather_ms: (!random.one_in(4)).then(|| [100, 1000, 10_000][random.below(3) as usize]),
            sends_ms: Some([5, 50, 500, 3000][random.below(4) as usize]),
        };
        self.disk.behave(|behaviour| {
            behaviour.power_loss_in = power_loss_in;
            behaviour.sync_failure_in = sync_failure_in;
            behaviour.fault_one_in = fault_one_in;
        });
        self.world.lock().has_faults = fault_one_in > 0;
        let lived = self.live(plan);
        self.world.lock().has_faults = false;
        self.disk.behave(|behaviour| {
            behaviour.power_loss_in = None;
            behaviour.sync_failure_in = None;
            behaviour.fault_one_in = 0;
            behaviour.full = false;
        });
        if !self.disk.is_powered() || self.random.one_in(3) {
            self.world.lock().note("power lost", 0, 0);
            self.disk.lose_power();
        } else {
            self.disk.kill_process();
        }
        let (places, world) = (lived?, &mut *self.world.lock());
        if world.shape.is_damaged && self.random.one_in(2) {
            damage(&self.disk, world, &places);
        }
        for route in &mut world.routes {
            if self.random.one_in(2) {
                route.weather = Weather::default();
            }
        }
        Ok(())
    }

    fn live(&mut self, plan: Plan) -> Result<Vec<StepPlace>, String> {
        if plan.weather_ms.is_none() {
            for route in &mut self.world.lock().routes {
                route.weather = Weather::default();
            }
        }
        // What the process before had begun goes with its runtime.
        let mut builder = runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(live(&self.disk, &self.world, &self.metrics, plan))
    }

    fn outcome(self, problem: Option<String>) -> Outcome {
        let files = self.disk.paths().into_iter().map(|path| {
            let len = self.disk.bytes(&path).map_or(0, |bytes| bytes.len());
            (path.display().to_string(), len)
        });
        let files = files.collect();
        let mut world = self.world.lock();
        let trace = std::mem::take(&mut world.trace);
        let mut fired = self.disk.fired();
        for (_, what, ..) in &trace {
            *fired.entry(what).or_default() += 1;
        }
        Outcome {
            problem,
            trace,
            files,
            fired,
        }
    }
}

fn simulate(seed: u64, metrics: &Arc<JobMetrics>) -> Outcome {
    let mut simulation = Simulation::new(seed, metrics.clone());
    let result = catch_unwind(AssertUnwindSafe(|| simulation.run()));
    let problem = match result {
        Ok(result) => result.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(format!("a panic: {}", text.unwrap_or_default()))
        }
    };
    simulation.outcome(problem)
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn whatever_fails_what_is_acknowledged_gets_out_and_nothing_that_is_settled_comes_again() {
    if let Some(seed) = number("FOREBAY_SIM_SEED") {
        let outcome = simulate(seed, &JobMetrics::register(&Metrics::new()));
        for (ms, what, route, number) in &outcome.trace {
            println!("{ms:>8} ms  route {route}  {what} {number}");
        }
        assert_eq!(outcome.problem, None);
        return;
    }
    let from = number("FOREBAY_SIM_FROM").unwrap_or(0);
    let end = from + number("FOREBAY_SIM_SEEDS").unwrap_or(SEEDS);
    let (next, is_over) = (AtomicU64::new(from), AtomicBool::new(false));
    let fired = Mutex::new(BTreeMap::<&'static str, u64>::new());
    let problems = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let metrics = JobMetrics::register(&Metrics::new());
                while !is_over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let outcome = simulate(seed, &metrics);
                    for (what, times) in outcome.fired {
                        *fired.lock().entry(what).or_default() += times;
                    }
                    if let Some(problem) = outcome.problem {
                        problems.lock().insert(seed, problem);
                        is_over.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let fired = fired.into_inner();
    println!("{fired:#?}");
    for what in [
        "compacted",
        "given up",
        "pages forgotten that the disk does not have",
        "route full",
        "shed",
    ] {
        assert!(
            end - from < SEEDS || !problems.lock().is_empty() || fired.contains_key(what),
            "never happened: {what}"
        );
    }
    if let Some((seed, problem)) = problems.into_inner().pop_first() {
        panic!("{problem}; FOREBAY_SIM_SEED={seed} replays it");
    }
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    let metrics = JobMetrics::register(&Metrics::new());
    for seed in 0..20 {
        let (first, second) = (simulate(seed, &metrics), simulate(seed, &metrics));
        let differs = first.trace.iter().zip(&second.trace).position(|(a, b)| a != b);
        assert_eq!(
            differs.map(|at| (first.trace[at], second.trace[at])),
            None,
            "seed {seed}"
        );
        assert!(first == second, "seed {seed}");
    }
}
