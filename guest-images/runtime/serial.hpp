#pragma once

namespace guest {

// The 16550 at 0x3f8. Reception is by interrupt into a ring (traps.S); transmission is queued.
namespace serial {

void start();

// Queues one byte; sends older ones first when the queue is full.
void put(char c);

// Sends at most one queued byte, and only if the transmitter is ready: two port accesses cost up to
// 60 us, and a line sent at once would look like a blackout of milliseconds.
void pump();

// Sends all that is queued.
void flush();

// Whether bytes wait to be sent or to be taken.
bool busy();

// The next received byte, if there is one. Costs one memory access when there is none.
bool take(char& c);

}  // namespace serial
}  // namespace guest
