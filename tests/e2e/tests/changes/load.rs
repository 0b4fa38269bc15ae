//! Many tasks on two targets while sessions, wires, CA and relay are killed again and again: every change is done once and
//! none twice, each answer was true when it was given, and the relay does not grow.
//!
//! The targets have fifty addresses, and the name by which the relay knows them changes its address all the time, as names
//! do: whoever kept a connection or an address for longer than it is good would be seen here.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use harness::control::Control;
use harness::cut::Wire;
use harness::mcp::Called;
use harness::spawn::wait_for;
use harness::{ALICE, McpClient, Options, Process, Stack, effects, processes};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::scene::{self, Claim, claim, count_on, words};

const TARGETS: [&str; 2] = ["web-1", "web-2"];
/// Addresses in front of all targets, each a wire of its own.
const ADDRESSES: u8 = 50;
const CLIENTS: usize = 8;
/// How long one step of a task may be in the way of everything: a payload is good for 60 s, clocks may differ by 30.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(100);

/// What is done, and what is done to it.
struct Load {
    tasks: usize,
    /// Over how long the tasks begin.
    time: Duration,
    /// Pauses between the deaths of a session (or its wire), of the CA, and of the relay: by chance half to one and a half of
    /// this.
    session: Duration,
    ca: Duration,
    relay: Duration,
    /// In which the relay is left alone, so that its memory can be looked at.
    calm: Range<Duration>,
}

/// What became of it.
#[derive(Default)]
struct Tally {
    /// Words of changes that were said to be done.
    done: Vec<(usize, String)>,
    /// How often each answer was given, by tool.
    answers: BTreeMap<(String, String), usize>,
    kills: BTreeMap<&'static str, usize>,
    /// How long each change took its client, with all that it went through.
    took: Vec<Duration>,
    /// The relay's memory, in KiB.
    memory: Vec<(Duration, u64)>,
}

struct Field {
    load: Load,
    stack: RwLock<Stack>,
    wires: [Vec<Wire>; TARGETS.len()],
    begun: Instant,
    next: AtomicUsize,
    over: AtomicBool,
    tally: Mutex<Tally>,
}

#[test]
fn tasks_go_on_while_everything_is_killed_and_no_effect_is_lost_or_doubled() {
    let calm = Duration::ZERO..Duration::ZERO;
    let load = Load {
        tasks: 60,
        time: Duration::from_secs(15),
        session: Duration::from_millis(300),
        ca: Duration::from_secs(5),
        relay: Duration::from_secs(5),
        calm,
    };
    run(load);
}

#[test]
#[ignore = "ten minutes: what the test above does for seconds"]
fn two_thousand_tasks_in_ten_minutes_of_kills_lose_and_double_nothing_and_the_relay_does_not_grow() {
    let load = Load {
        tasks: 2000,
        time: Duration::from_secs(600),
        session: Duration::from_secs(1),
        ca: Duration::from_secs(20),
        relay: Duration::from_secs(20),
        calm: Duration::from_secs(110)..Duration::from_secs(420),
    };
    let memory = run(load);
    let after = Duration::from_secs(120)..Duration::from_secs(420);
    let memory: Vec<_> = memory.into_iter().filter(|(at, _)| after.contains(at)).collect();
    let slope = slope(&memory);
    println!(
        "the relay's memory: {} to {} KiB, {slope:+.0} KiB a minute",
        memory.iter().map(|(_, kib)| kib).min().unwrap(),
        memory.iter().map(|(_, kib)| kib).max().unwrap(),
    );
    assert!(memory.len() > 200 && slope < 1024.0);
}

/// Puts the load on, and everything that has to be true of it. The relay's memory.
fn run(load: Load) -> Vec<(Duration, u64)> {
    let seed = rand::random();
    println!("seed {seed}");
    let field = Field::new(load);
    thread::scope(|scope| {
        let helpers = [
            scope.spawn(|| field.disturb(StdRng::seed_from_u64(seed))),
            scope.spawn(|| field.rename()),
            scope.spawn(|| field.look()),
        ];
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| field.work())).collect();
        // Everything ends before anything is said, also where one of them has failed.
        let ends: Vec<_> = clients.into_iter().map(thread::ScopedJoinHandle::join).collect();
        field.over.store(true, Ordering::SeqCst);
        let ends: Vec<_> = ends
            .into_iter()
            .chain(helpers.map(thread::ScopedJoinHandle::join))
            .collect();
        assert!(ends.iter().all(Result::is_ok), "see above");
    });
    let Field {
        load,
        stack,
        begun,
        tally,
        ..
    } = field;
    let (took, stack) = (begun.elapsed(), stack.into_inner().unwrap());
    let mut tally = tally.into_inner().unwrap();
    let done: usize = tally.done.len();
    assert_eq!(done, load.tasks * 2, "two changes a task");
    for (number, target) in TARGETS.iter().enumerate() {
        let mut effects = effects::all(stack.target(target).unwrap()).unwrap();
        let said = tally.done.iter().filter(|(target, _)| *target == number);
        let mut said: Vec<String> = said.map(|(_, word)| word.clone()).collect();
        effects.sort();
        said.sort();
        assert_eq!(effects, said, "{target}");
    }
    scene::books(&stack);
    tally.took.sort();
    let at = |part: usize| tally.took[(tally.took.len() - 1) * part / 100];
    println!(
        "{} tasks with {done} changes in {:.0} s: 0 lost, 0 doubled; a change took {:?}, of 100 the longest but one {:?}, at \
         most {:?}",
        load.tasks,
        took.as_secs_f64(),
        at(50),
        at(99),
        at(100)
    );
    println!("killed: {:?}", tally.kills);
    for ((tool, answer), times) in &tally.answers {
        println!("{times:>6} {tool}: {answer}");
    }
    tally.memory
}

impl Field {
    fn new(load: Load) -> Field {
        let options = Options {
            targets: TARGETS.to_vec(),
            ..effects::options()
        };
        let mut stack = Stack::start(&options).unwrap();
        let mut wires = [const { Vec::new() }; TARGETS.len()];
        // The same port everywhere: a name has addresses, and no ports.
        let mut port = 0;
        for number in 0..ADDRESSES {
            let of = usize::from(number) % TARGETS.len();
            let from = SocketAddr::from((Ipv4Addr::new(127, 0, 1, number + 1), port));
            let wire = Wire::between(from, stack.target(TARGETS[of]).unwrap().address()).unwrap();
            port = wire.address().port();
            wires[of].push(wire);
        }
        let root = stack.control.root();
        root.file("etc/nsswitch.conf", 0o644, "hosts: files\n").unwrap();
        root.file("etc/hosts", 0o644, hosts(&wires, 0)).unwrap();
        let Stack { control, targets, .. } = &mut stack;
        for target in targets {
            control
                .reroute(target, &format!("{}.test:{port}", target.name()))
                .unwrap();
        }
        Field {
            load,
            stack: RwLock::new(stack),
            wires,
            begun: Instant::now(),
            next: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            tally: Mutex::default(),
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }

    /// A client, as soon as there is a relay.
    fn client(&self) -> McpClient {
        let mut client = None;
        wait_for("a relay", PATIENCE, || {
            let command = self.stack.read().unwrap().client_command(ALICE);
            client = McpClient::start(command).ok();
            Ok(client.is_some())
        })
        .unwrap();
        client.unwrap()
    }

    /// Takes one task after the other, when it is due.
    fn work(&self) {
        let mut brain = Brain {
            field: self,
            client: self.client(),
        };
        loop {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            if number >= self.load.tasks {
                return;
            }
            let due = self.load.time.mul_f64(number as f64 / self.load.tasks as f64);
            thread::sleep(due.saturating_sub(self.begun.elapsed()));
            brain.task(number % TARGETS.len());
        }
    }

    /// Kills what there is to kill, until all is over.
    fn disturb(&self, mut chance: StdRng) {
        let load = &self.load;
        let mut due = [load.session, load.ca, load.relay].map(|pause| about(&mut chance, pause));
        while self.goes_on() {
            thread::sleep(Duration::from_millis(20));
            let now = self.begun.elapsed();
            if now >= due[0] {
                self.kill_session(&mut chance);
                due[0] = now + about(&mut chance, load.session);
            }
            if now >= due[1] {
                self.control(Control::stop_ca);
                thread::sleep(about(&mut chance, load.ca) / 20);
                self.control(|control| control.start_ca().unwrap());
                self.killed("the CA");
                due[1] = now + about(&mut chance, load.ca);
            }
            if now >= due[2] && !load.calm.contains(&now) {
                self.control(Control::stop_relay);
                thread::sleep(about(&mut chance, load.relay) / 20);
                self.control(|control| control.start_relay().unwrap());
                self.killed("the relay");
                due[2] = now + about(&mut chance, load.relay);
            }
        }
    }

    fn control(&self, what: impl FnOnce(&mut Control)) {
        what(&mut self.stack.write().unwrap().control);
    }

    fn killed(&self, what: &'static str) {
        *self.tally().kills.entry(what).or_default() += 1;
    }

    /// One of sshd's processes for a connection, or all wires of a target.
    fn kill_session(&self, chance: &mut StdRng) {
        let of = chance.random_range(0..TARGETS.len());
        if chance.random_ratio(1, 8) {
            self.wires[of].iter().for_each(Wire::sever);
            self.killed("all wires of a target");
            return;
        }
        let listener = self.stack.read().unwrap().target(TARGETS[of]).unwrap().sshd_pid();
        let mut sessions = processes::below(listener.unwrap());
        sessions.retain(|process| process.name() == "sshd");
        if !sessions.is_empty() {
            let session = &sessions[chance.random_range(0..sessions.len())];
            // It may be gone by now.
            let _ = kill(Pid::from_raw(session.pid.try_into().unwrap()), Signal::SIGKILL);
            self.killed("a process of sshd");
        }
    }

    /// Gives the targets' names one address after the other.
    fn rename(&self) {
        let path = self.stack.read().unwrap().control.root().at("etc/hosts");
        let new = path.with_extension("new");
        for turn in 0.. {
            if !self.goes_on() {
                return;
            }
            fs::write(&new, hosts(&self.wires, turn)).unwrap();
            fs::rename(&new, &path).unwrap();
            thread::sleep(Duration::from_millis(400));
        }
    }

    /// Writes down the relay's memory once a second.
    fn look(&self) {
        while self.goes_on() {
            let (relay, _) = self.stack.read().unwrap().control.pids();
            let memory = relay.and_then(Process::of).and_then(|relay| {
                let kib = relay.status("VmRSS")?.trim_end_matches(" kB").parse().ok()?;
                Some((self.begun.elapsed(), kib))
            });
            self.tally().memory.extend(memory);
            thread::sleep(Duration::from_secs(1));
        }
    }
}

/// A client that never gives up, and believes what it is told.
struct Brain<'a> {
    field: &'a Field,
    client: McpClient,
}

impl Brain<'_> {
    /// A task of five calls.
    fn task(&mut self, target: usize) {
        let name = TARGETS[target];
        let open = json!({ "reason": "a test", "targets": [name] });
        let opened = self.until_ok("open_task", &open);
        let task = &opened["task_id"];
        self.change(target, task);
        let tail = json!({ "target": name, "task_id": task, "path": "/var/log/shop/web.log", "lines": 1 });
        self.until_ok("tail_log", &tail);
        self.change(target, task);
        self.close(task);
    }

    /// A change, made until it is done. It is made again only where it was said that it never ran: if that is ever wrong, the
    /// effect is there twice.
    fn change(&mut self, target: usize, task: &Value) {
        let (word, begun) = (words(), Instant::now());
        let call = count_on(TARGETS[target], task, effects::ACTION, json!({ "word": word }));
        let known = self.requests(task);
        loop {
            assert!(begun.elapsed() < PATIENCE, "{word}");
            let request = match self.call("run_action", &call) {
                Some(called) => match claim(&called) {
                    Claim::Done => break,
                    Claim::NeverDone => None,
                    Claim::Unknown => Some(called.value["request_id"].clone()),
                },
                // Was it taken? Whatever was sent is on record.
                None => {
                    let new = |id: &Value| !known.iter().any(|old| &old["request_id"] == id);
                    let requests = self.requests(task);
                    requests.into_iter().map(|one| one["request_id"].clone()).rfind(new)
                }
            };
            if request.is_some_and(|request| self.settle(task, &request)) {
                break;
            }
            thread::sleep(AGAIN);
        }
        let mut tally = self.field.tally();
        tally.took.push(begun.elapsed());
        tally.done.push((target, word));
    }

    /// Looks until it is known what became of a request, and says whether it was done.
    fn settle(&mut self, task: &Value, request: &Value) -> bool {
        let begun = Instant::now();
        loop {
            let requests = self.requests(task);
            let found = requests.iter().find(|one| &one["request_id"] == request).unwrap();
            match found["status"].as_str().unwrap() {
                "ok" => return true,
                "failed" => {
                    let code = found["code"].as_str().unwrap();
                    assert!(["not_sent", "request_expired"].contains(&code), "{found}");
                    self.count("task_status", code);
                    return false;
                }
                // The CA was away.
                "refused" => return false,
                "unknown" | "running" => assert!(begun.elapsed() < PATIENCE, "{found}"),
                _ => panic!("{found}"),
            }
            thread::sleep(AGAIN);
        }
    }

    fn requests(&mut self, task: &Value) -> Vec<Value> {
        let status = self.until_ok("task_status", &json!({ "task_id": task }));
        status["requests"].as_array().unwrap().clone()
    }

    /// Closes a task. Where the answer was lost it may be closed already.
    fn close(&mut self, task: &Value) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            match self.call("close_task", &json!({ "task_id": task })) {
                Some(called) if !called.is_error || called.code() == "task_ended" => return,
                Some(called) => assert_eq!(called.value["retryable"], true, "{}", called.value),
                None => {}
            }
            thread::sleep(AGAIN);
        }
        panic!("{task} is not closed");
    }

    /// Calls a tool that changes nothing on a target until it is answered. What is in the way must be said to pass.
    fn until_ok(&mut self, tool: &str, arguments: &Value) -> Value {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(called) = self.call(tool, arguments) {
                if !called.is_error {
                    return called.value;
                }
                assert_eq!(called.value["retryable"], true, "{tool}: {}", called.value);
            }
            thread::sleep(AGAIN);
        }
        panic!("{tool}: no answer");
    }

    /// One call; none where the relay was gone before it answered, and there is a new one.
    fn call(&mut self, tool: &str, arguments: &Value) -> Option<Called> {
        let called = self.client.call(tool, arguments.clone()).ok();
        let answer = match &called {
            Some(called) if called.value["replayed"] == true => "ok, replayed",
            Some(called) if !called.is_error => "ok",
            Some(called) => called.code(),
            None => "the relay is gone",
        };
        self.count(tool, answer);
        if called.is_none() {
            self.client = self.field.client();
        }
        called
    }

    fn count(&self, tool: &str, answer: &str) {
        let mut tally = self.field.tally();
        *tally.answers.entry((tool.to_owned(), answer.to_owned())).or_default() += 1;
    }
}

/// Half to one and a half of a time.
fn about(chance: &mut StdRng, time: Duration) -> Duration {
    time.mul_f64(chance.random_range(0.5..1.5))
}

/// The addresses that the targets have at this turn.
fn hosts(wires: &[Vec<Wire>], turn: usize) -> String {
    let line = |(name, wires): (&&str, &Vec<Wire>)| {
        let wire = &wires[turn % wires.len()];
        format!("{} {name}.test\n", wire.address().ip())
    };
    TARGETS.iter().zip(wires).map(line).collect()
}

/// By how many KiB a minute it grows: the line that fits best.
fn slope(memory: &[(Duration, u64)]) -> f64 {
    let points: Vec<(f64, f64)> = memory
        .iter()
        .map(|(at, kib)| (at.as_secs_f64() / 60.0, *kib as f64))
        .collect();
    let of = points.len() as f64;
    let (x, y) = points
        .iter()
        .fold((0.0, 0.0), |(x, y), point| (x + point.0 / of, y + point.1 / of));
    let (above, below) = points.iter().fold((0.0, 0.0), |(above, below), point| {
        let dx = point.0 - x;
        (above + dx * (point.1 - y), below + dx * dx)
    });
    above / below
}
