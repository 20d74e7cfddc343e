/*
 * The handover of PROTOCOL.md, section 5, message by message, for spin; `tools/check_model` checks it.
 *
 * Every interleaving of both sides, of the listener and of a person, with up to FAULTS faults at any step: a connection
 * cut (what is in flight arrives or does not), a message that comes twice, a query lost, a wait that ran out, a record not
 * written, a guest that cannot start, either process killed, the listener ended (for ever, or begun again), the
 * destination's host rebooted. The source may come back over a new connection (section 6), or not.
 *
 * Left out: everything before Prepare, data connections and what they carry, the locks of disks (what they forbid is
 * forbidden here without them), epochs (one handover), what becomes of a guest after its handover.
 */
#ifndef FAULTS
#define FAULTS 2
#endif

mtype = {
    nothing,
    /* messages */
    Prepare, Prepared, Finish, MachineState, Ready, Commit, Running, Placed, Failed, Acknowledge, Cancel, Resume, Held,
    /* phases of the source, besides Prepare and Commit */
    Copy, Pause, Final, Done,
    /* states of the destination, besides Failed */
    Configured, Receiving, Verified, Loaded, Started, Refused, Parked,
    /* records */
    intent, committing, done, ready, started, running, failed, refused, unreadable,
    /* answers to Query, besides running, refused and failed */
    lost, unknown,
    /* `vmm resolve` */
    resume, discard,
    /* the guest at the source */
    runs, paused, freed, died,
    /* the listener */
    up, restarting, down
};

byte faults = FAULTS;
#define FAULT(when) (faults > 0 && (when)) -> faults--

/* The source. */
bool source_alive = true;
mtype phase = Prepare;
mtype source_guest = runs;
mtype source_record = nothing;
bool undecided = false;             /* its outcome is unknown */
bool told_lost = false;
mtype resolution = nothing;         /* what a person said */
bool resumed_by_person = false;

/* The destination: one process for the session. */
bool alive = true;
mtype state = Configured;
mtype record = nothing;
bool entered = false;               /* a vCPU has called KVM_RUN there, or the guest was placed paused */
bool began_recorded = false;        /* `started` was written, and reported as written */
bool said_refused = false;          /* to a Query */
bool rebooted = false;              /* another boot id than the record's */
bool synced = false;                /* the record would survive a reboot: `ready` does, and what the listener wrote */

/* The control connection, and what is in flight on it. Both ends may still read that after it was cut, or not. */
bool cut = false;
chan to_destination = [6] of { mtype };
chan to_source = [6] of { mtype };

/* --retry, known to both. */
bool retries;
bool coming_back = false;           /* a Hello(resume) is on its way */
bool came_back = false;

/* A Query connection; a new one has another number. The listener's channel to the process of the session. */
mtype listener = up;
bool has_channel = true;            /* a listener begun again has none */
bool query_open = false;
byte query_number = 0;
chan to_listener = [1] of { byte };
chan from_listener = [1] of { mtype };
chan to_session = [4] of { byte };
chan from_session = [4] of { byte, mtype };

/* -- What must hold. ----------------------------------------------------------------------------------------------- */

#define source_runs      (source_guest == runs)
#define destination_runs (entered && alive)
#define refused_there    (state == Refused || state == Failed)

/* Never two copies run. Stronger, of what the source does by itself: once the destination's has run, even if it is dead
 * since, the source's never runs again. (A person may choose the source's when the destination's is dead.) */
ltl never_two { [] !(source_runs && (destination_runs || (entered && !resumed_by_person))) }

/* Never none. The source frees its copy only when the destination's has begun, and has recorded before that it would;
 * and the destination drops its copy only when that has not begun. Otherwise a copy goes only with its process. */
ltl never_none { [] ((source_guest == freed -> entered && began_recorded) && (refused_there -> !entered)) }

/* A `refused` that was answered is on disk: whoever answers later, from the record, cannot say anything else. (The
 * process does not sync it, and a reboot may lose it: then the answer is `lost`, which promises nothing.) */
ltl answers_agree { [] (said_refused && !rebooted -> record == refused || record == unreadable) }

/* Every run ends: the source's copy runs, was freed or died with its process, or it waits, paused, for a person; and
 * the destination's has begun, or is gone. A person is needed only for these. */
#define person_needed (undecided && (told_lost || listener == down || record == unreadable || \
                       (alive && !has_channel && record == started)))
#define source_ended  (!source_alive || source_guest == freed || (source_runs && phase == Done) || person_needed)
ltl ends { <> [] (source_ended && (!alive || state == Started || refused_there)) }

/* Not to hold: that these cannot happen. A model in which nothing happens would satisfy all the others. */
#define over_here (source_runs && phase == Done)
ltl reach_cancelled { [] !(over_here && state == Refused && faults == FAULTS) }
ltl reach_completed { [] !(source_guest == freed && destination_runs && record == done && faults == FAULTS) }
ltl reach_answered_running { [] !(source_guest == freed && destination_runs && undecided && resolution == nothing) }
ltl reach_answered_refused { [] !(over_here && undecided && record == refused && resolution == nothing) }
ltl reach_answered_failed { [] !(over_here && undecided && record == failed && resolution == nothing) }
ltl reach_refused_by_record { [] !(over_here && undecided && !alive && state == Loaded && resolution == nothing) }
ltl reach_late_commit { [] !(over_here && undecided && resolution == nothing && alive && to_destination ?? [Commit]) }
ltl reach_lost { [] !(told_lost && entered) }
ltl reach_lost_by_reboot { [] !(told_lost && !entered) }
ltl reach_resumed_by_person { [] !(over_here && resumed_by_person && entered) }
ltl reach_discarded { [] !(source_guest == freed && resolution == discard && destination_runs) }
ltl reach_source_died { [] !(source_guest == died && destination_runs) }
ltl reach_completed_after_break { [] !(source_guest == freed && destination_runs && record == done && came_back) }

/* -- Faults and records. ------------------------------------------------------------------------------------------- */

/* The inlines are parts of atomic steps: what lies between two steps is where a process can be killed. */

/* One sector, overwritten. A write that is reported to have failed has left what was there, or the new, or neither. */
inline write(file, status) {
    if
    :: file = status; ok = true
    :: FAULT(true); ok = false
    :: FAULT(true); file = status; ok = false
    :: FAULT(true); file = unreadable; ok = false
    fi
}

/* A send that fails proves nothing: the message may have left. One that succeeds does not either. */
inline send(channel, message) {
    if
    :: !cut -> channel!message; ok = true
    :: FAULT(!cut); channel!message; channel!message; ok = true
    :: FAULT(!cut); channel!message; cut = true; ok = false
    :: cut -> ok = true
    :: cut -> ok = false
    fi
}

/* `nothing` is the end of the connection, or of patience. */
inline receive(channel) {
    if
    :: channel?message
    :: cut -> message = nothing
    :: FAULT(true); message = nothing
    fi
}

/* A reboot may bring back what was not synced. */
inline revert() {
    if
    :: true
    :: record != nothing && !synced -> record = ready
    :: record == running || record == done || record == failed -> record = started
    fi
}

inline drain(channel) {
    do
    :: nempty(channel) -> channel?_
    :: empty(channel) -> break
    od
}

inline end_process() {
    alive = false; cut = true
}

inline close_query() {
    query_open = false;
    drain(from_listener)
}

inline end_source() {
    source_alive = false; source_guest = died; cut = true; coming_back = false;
    close_query()
}

inline end_listener() {
    if
    :: listener = restarting
    :: listener = down      /* or nothing gets through to it any more */
    fi;
    has_channel = false;
    close_query();
    drain(to_listener); drain(to_session);
    do
    :: nempty(from_session) -> from_session?_, _
    :: empty(from_session) -> break
    od
}

active proctype World() {
end:
    do
    :: atomic { FAULT(!cut); cut = true }
    :: atomic { FAULT(coming_back); coming_back = false }
    :: atomic { FAULT(query_open); close_query() }
    :: atomic { FAULT(source_alive && phase != Done); end_source() }
    :: atomic { FAULT(alive); end_process() }
    :: atomic { FAULT(listener == up); end_listener() }
    :: atomic { FAULT(!rebooted); rebooted = true; end_process(); end_listener(); revert() }
    od
}

/* -- The source: source.cpp, source_outcome.cpp, source_retry.cpp. -------------------------------------------------- */

/* Before Commit every error, `vmm cancel` and every limit lead to the same place, but for a break when it may come back. */
inline expect(wanted) {
    if
    :: receive(to_source)
    :: message = nothing        /* cancelled, or past a limit */
    fi;
    if
    :: message == wanted -> message = nothing
    :: message != wanted -> goto roll_back
    :: message == nothing && cut && retries && phase != Prepare -> goto come_back
    fi
}

active proctype Source() {
    mtype message = nothing;
    bool ok;
    {
        atomic {
            if
            :: retries = true
            :: retries = false
            fi;
            write(source_record, intent);
            if
            :: !ok -> goto roll_back
            :: ok -> send(to_destination, Prepare); ok = false
            fi
        }
        atomic { expect(Prepared); phase = Copy }
copy:   atomic {
            if
            :: cut && retries -> goto come_back
            :: phase = Pause; source_guest = paused
            fi
        }
        atomic { phase = Final; send(to_destination, Finish); send(to_destination, MachineState); ok = false }
        atomic { expect(Ready); phase = Commit }        /* `vmm cancel` is refused from here on */
        atomic {
            write(source_record, committing);
            if
            :: !ok -> goto roll_back
            :: ok -> ok = false
            fi
        }
        atomic {
            send(to_destination, Commit);
            if
            :: !ok -> goto settle
            :: ok -> ok = false
            fi
        }
        atomic {
            receive(to_source);
            if
            :: message == Running || message == Placed -> send(to_destination, Acknowledge); goto release
            :: message == Failed -> goto roll_back
            :: else -> goto settle
            fi
        }

        /* Only before Commit: the guest runs meanwhile. */
come_back:
        atomic { message = nothing; phase = Copy; source_guest = runs; cut = true; coming_back = true }
        if
        :: atomic { !coming_back -> send(to_destination, Resume); ok = false }  /* there, or lost on its way */
        :: atomic { coming_back = false; goto roll_back }       /* its time is over, or the session is unknown */
        fi;
        atomic { expect(Held); came_back = true; goto copy }

settle: atomic { cut = true; undecided = true; ok = false }
end_asks:
        do
        :: atomic { resolution == resume -> resumed_by_person = true; goto roll_back }
        :: atomic { resolution == discard -> goto release }
        :: atomic { resolution == nothing && told_lost };
end_lost:  resolution != nothing
        :: atomic {
               /* A Query, over a connection of its own. */
               resolution == nothing && !told_lost && listener == up ->
               query_number = (query_number + 1) % 3; query_open = true; to_listener!query_number
           };
           if
           :: atomic {
                  from_listener?message -> query_open = false;
                  if
                  :: message == running -> goto release
                  :: message == refused || message == failed -> goto roll_back
                  :: message == lost -> told_lost = true; message = nothing
                  :: message == unknown -> message = nothing
                  fi
              }
           :: !query_open
           fi
        od;

release:
        atomic {
            message = nothing; write(source_record, done); ok = false; phase = Done; source_guest = freed; goto over }

roll_back:
        atomic { message = nothing; source_guest = runs }
        atomic {
            send(to_destination, Cancel); write(source_record, done); ok = false; phase = Done; cut = true }
over:   skip
    } unless { !source_alive }
}

/* -- The destination's process: destination.cpp, destination_session.cpp, destination_parking.cpp. ------------------ */

inline refuse() {
    if
    :: record != nothing -> write(record, refused)
    :: record == nothing
    fi;
    state = Refused
}

/* The session is over, with these last words. */
inline leave(word) {
    send(to_source, word);
    cut = true; over = true
}

/* What it has is of use to a source that comes back. */
#define resumable (state == Receiving || state == Verified || state == Loaded || state == Parked)

inline on(message) {
    if
    :: message == Prepare && state == Configured ->
       write(record, ready);
       if
       :: ok -> state = Receiving; send(to_source, Prepared)
       :: !ok -> refuse(); leave(Failed)
       fi
    :: message == Finish && state == Receiving -> state = Verified
    :: message == MachineState && state == Verified ->
       if
       :: state = Loaded; send(to_source, Ready)
       :: FAULT(true); refuse(); leave(Failed)          /* the digest or the state is not what it should be */
       fi
    :: message == Commit && state == Loaded -> goto commit
    :: message == Cancel -> refuse(); over = true; cut = true
    :: message == nothing && retries && resumable -> state = Parked; cut = true; drain(to_destination)
    :: message == Resume && state == Parked -> state = Receiving; send(to_source, Held)
    :: else -> refuse(); leave(Failed)
    fi
}

active proctype Destination() {
    mtype message = nothing, answer = nothing;
    byte number;
    bool ok;
    bool over = false;          /* nobody reads the control connection any more */
    {
end:    do
        :: atomic {
               !over && (state != Parked || !cut || nempty(to_destination)) -> receive(to_destination);
               if
               :: message == Acknowledge && state == Started -> write(record, done); over = true; cut = true
               :: (message != Acknowledge && state == Started) || refused_there -> over = true; cut = true
               :: else -> on(message)
               fi;
               message = nothing; ok = false
           }
        /* Another connection takes the place of the one before, of which nothing is read any more. */
        :: atomic {
               coming_back && has_channel && !over && retries && resumable ->
               state = Parked; drain(to_destination); drain(to_source); cut = false; coming_back = false
           }
        :: atomic { state == Parked && cut && empty(to_destination) -> refuse(); over = true; ok = false }  /* its time is over */
        /* Query: first no more on the control connection, then the decision. */
        :: atomic {
               to_session?number -> cut = true;
               if
               :: state == Started -> answer = running
               :: state == Failed -> answer = failed
               :: else ->
                  ok = true;
                  refuse();
                  if
                  :: ok -> answer = refused
                  :: !ok -> answer = unknown
                  fi
               fi;
               said_refused = said_refused || answer == refused;
               if
               :: has_channel -> from_session!number, answer
               :: !has_channel
               fi;
               answer = nothing; number = 0; ok = false
           }
        :: atomic { over && refused_there -> end_process(); break }
        od;
        goto ended;

        /* Under the lock that Query needs: no Query comes between these steps, but an end of the process does. */
commit: atomic {
            message = nothing;
            write(record, started);
            if
            :: !ok -> refuse(); leave(Failed); ok = false; goto end
            :: ok -> began_recorded = true; ok = false
            fi
        }
        atomic {
            if
            :: entered = true
            :: FAULT(true);                 /* no thread called KVM_RUN */
               write(record, failed); state = Failed; leave(Failed); ok = false; goto end
            fi
        }
        atomic {
            write(record, running);
            state = Started;
            if
            :: send(to_source, Running)
            :: send(to_source, Placed)
            fi;
            ok = false; goto end
        }
ended:  skip
    } unless { !alive }
}

/* -- The listener: listener_sessions.cpp, query.cpp. --------------------------------------------------------------- */

/* `lives`: the process holds the record's lock. That is looked at before the record is read. */
inline answer_from_record() {
    if
    :: record == started && !lives -> answer = lost
    :: record == running && !lives -> answer = lost
    :: record == done || (record == running && lives) -> answer = running
    :: record == ready && !lives && rebooted -> answer = lost
    :: record == ready && !lives && !rebooted ->
       write(record, refused);
       if
       :: ok -> synced = true; said_refused = true; answer = refused
       :: !ok -> answer = unknown
       fi
    :: record == refused -> answer = refused
    :: record == failed -> answer = failed
    :: else -> answer = unknown
    fi;
    lives = false; ok = false
}

active proctype Listener() {
    mtype answer = nothing;
    byte number, asked;
    bool lives, ok;
begin:
    skip;
    {
end:    do
        :: atomic {
               to_listener?number ->
               if
               :: has_channel && alive -> to_session!number
               :: else -> lives = alive; goto look
               fi
           };
           do
           :: atomic {
                  from_session?asked, answer ->
                  if
                  :: asked == number -> goto tell
                  :: asked != number -> asked = 0; answer = nothing
                  fi
              }
           :: atomic { !alive && empty(from_session) -> goto look }
           :: atomic { FAULT(true); answer = unknown; goto tell }
           od;
look:      atomic { answer_from_record() }
tell:      atomic {
               if
               :: query_open && query_number == number -> from_listener!answer
               :: else
               fi;
               number = 0; asked = 0; answer = nothing
           }
        od
    } unless { listener != up };
end_ended:
    atomic {
        listener == restarting -> listener = up; number = 0; asked = 0; answer = nothing; lives = false; goto begin }
}

/* -- A person, in front of a guest whose outcome is unknown. ------------------------------------------------------- */

/* Does what `unknown` and `lost` ask for: finds out there first. A guest that runs there is discarded here. It is
 * resumed here only when nothing can start it there any more: the process of the session has ended, or has refused. */
active proctype Person() {
end:
    undecided;
    if
    :: atomic { alive && state == Started -> resolution = discard }
    :: atomic { alive && refused_there -> resolution = resume }
    :: atomic { !alive -> resolution = resume }
    :: atomic { !alive && entered -> resolution = discard }
    :: atomic { alive && state != Started && !refused_there -> end_process(); resolution = resume }
    :: true                     /* nobody comes */
    fi
}
