// Every CPU at work: interprocessor interrupts in pairs (smp_ping), shared counters and a lock (smp_shared),
// a timer of its own (smp_timer). Even CPUs never sleep; odd ones sleep in HLT until they have something to
// do.

#include "runtime/clock.hpp"
#include "runtime/cpu.hpp"
#include "runtime/guest.hpp"
#include "runtime/lapic.hpp"
#include "runtime/shift.hpp"
#include "smp_ping.hpp"
#include "smp_shared.hpp"
#include "smp_timer.hpp"

namespace workload {

extern "C" const char workload_name[] = "smp";

namespace {

using guest::Fields;

struct alignas(64) Worker {
    CpuTimer timer;
    Ping ping;
    Shared::Member member;
    uint64_t sleeps = 0;
};

constinit Worker workers[MAX_CPUS];
constinit Shared shared;
constinit uint32_t cpus = 1;
constinit uint64_t lapic_hz = 0;
constinit uint64_t hz = 0;
constinit uint64_t slack = 0;
// Not on while a CPU might get an interrupt before it has started, and for the self-check.
constinit guest::Shift shift;

void work_once(Worker& worker) {
    worker.timer.step();
    if (shift.is_on()) {
        shared.add(worker.member);
        shared.poll(worker.member);
        worker.ping.poll();
    } else if (worker.member.waits) {
        shared.poll(worker.member);  // others wait for the ticket to be used
    } else {
        shift.rest(worker.member.cpu);
    }
}

void start_worker(guest::Cpu& cpu) {
    Worker& worker = workers[cpu.index];
    worker.member.cpu = cpu.index;
    worker.timer.start(cpu, lapic_hz, hz, slack);
    worker.ping.start(cpu, 10 * hz);
    if ((cpu.index ^ 1) < cpus) {
        worker.ping.pair_with(workers[cpu.index ^ 1].ping);
    }
}

void work(guest::Cpu& cpu) {
    start_worker(cpu);
    Worker& worker = workers[cpu.index];
    for (;;) {
        work_once(worker);
        const uint64_t received = worker.ping.received();
        if (cpu.index % 2 != 0 && !worker.member.waits && received == worker.ping.sent()) {
            ++worker.sleeps;
            guest::halt_while(cpu.ipis, received);
        }
    }
}

template <typename Condition>
void wait_for_each(Condition condition, const char* reason) {
    const uint64_t start = guest::boot_cpu.timer_ticks;
    for (uint32_t i = 0; i < cpus; ++i) {
        while (!condition(workers[i])) {
            guest::watch().beat();
            work_once(workers[0]);
            if (guest::boot_cpu.timer_ticks - start > 10 * hz) {
                guest::fail(Fields().text("reason", reason).number("cpu", i));
            }
        }
    }
}

// Returns when every CPU has started and rests, and every interrupt has arrived.
void wait_for_rest() {
    wait_for_each([](const Worker& worker) { return shift.rests(worker.member.cpu); }, "cpu_does_not_rest");
    wait_for_each([](const Worker& worker) { return worker.ping.settled(); }, "lost_ipi");
}

}  // namespace

void start(const guest::Parameters& parameters, Fields& ready) {
    hz = parameters.number("hz", 100);
    slack = parameters.number("slack", 1);
    const uint64_t skew_us = parameters.number("skew_us", 0);
    if (hz == 0 || hz > 1000) {
        guest::fail(Fields().text("reason", "bad_parameter").number("hz", hz));
    }
    lapic_hz = guest::measure_lapic_hz();
    cpus = guest::count_cpus(parameters);
    shared.start(cpus, guest::tsc_from_us(skew_us));
    guest::start_cpus(cpus, work);
    start_worker(guest::boot_cpu);
    wait_for_rest();
    shift.begin();
    ready.number("cpus", cpus).number("x2apic", parameters.number("x2apic", 0));
    ready.number("hz", hz).number("slack", slack).number("skew_us", skew_us);
}

void step() {
    work_once(workers[0]);
}

void report(Fields& fields) {
    uint64_t ipis = 0, additions = 0, sections = 0, sleeps = 0;
    uint64_t ticks = 0, lost = 0, extra = 0, moves = 0, pauses = 0;
    uint64_t fewest_ticks = UINT64_MAX, trip = UINT64_MAX;
    for (uint32_t i = 0; i < cpus; ++i) {
        const Worker& worker = workers[i];
        ipis += worker.ping.received();
        additions += worker.member.additions;
        sections += worker.member.sections;
        sleeps += worker.sleeps;
        const uint64_t own_ticks = worker.timer.ticks();
        ticks += own_ticks;
        fewest_ticks = own_ticks < fewest_ticks ? own_ticks : fewest_ticks;
        lost += worker.timer.lost();
        extra += worker.timer.extra();
        moves = worker.timer.moves() > moves ? worker.timer.moves() : moves;
        pauses += worker.timer.pauses();
        trip = worker.ping.shortest_trip() < trip ? worker.ping.shortest_trip() : trip;
    }
    fields.number("ipis", ipis).number("additions", additions).number("sections", sections);
    fields.number("sleeps", sleeps).number("ticks", ticks).number("fewest_ticks", fewest_ticks);
    fields.number("lost", lost).number("extra", extra).number("moves", moves).number("pauses", pauses);
    fields.number("tsc_warps", shared.warps()).number("tsc_warp_ticks", shared.largest_warp());
    const uint64_t bound = shared.skew_bound();
    if (bound != UINT64_MAX) {
        fields.tenths("skew_bound_us", guest::tenths_of_us(bound));
    }
    if (trip != UINT64_MAX) {
        fields.tenths("trip_min_us", guest::tenths_of_us(trip));
    }
}

bool verify(Fields& findings) {
    shift.end();
    wait_for_rest();
    uint64_t additions = 0, sections = 0;
    for (uint32_t i = 0; i < cpus; ++i) {
        additions += workers[i].member.additions;
        sections += workers[i].member.sections;
    }
    const bool ok = shared.verify(additions, sections, findings);
    shift.begin();
    return ok;
}

}  // namespace workload
