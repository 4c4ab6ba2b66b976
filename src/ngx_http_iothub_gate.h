
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * gate: what holds back the calls of all workers to one hub: a token bucket
 * for creations, and gates that the hub's own "not now" closes until a time.
 * Each is one 64-bit word of shared memory, 0 at the start, changed by
 * compare-and-swap; nobody else may write it.
 *
 * Times are ngx_current_msec: monotonic, the same for all workers of a
 * machine, and not comparable over a reboot, which clears shared memory
 * anyway.  A word whose time cannot be true holds nobody back for good.
 *
 * This room is pure: numbers and __atomic builtins.
 */


#ifndef _NGX_HTTP_IOTHUB_GATE_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_GATE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


#if (NGX_PTR_SIZE != 8)
#error ngx_http_iothub_module needs a 64-bit platform
#endif


/* what check() reports */

#define NGX_HTTP_IOTHUB_GATE_OPEN        0
#define NGX_HTTP_IOTHUB_GATE_CLOSED      1
#define NGX_HTTP_IOTHUB_GATE_PROBE       2
#define NGX_HTTP_IOTHUB_GATE_PROBING     3

/* milliseconds */

#define NGX_HTTP_IOTHUB_GATE_PROBE_TIME  5000
#define NGX_HTTP_IOTHUB_GATE_MAX_TIME    86400000    /* of one closing */
#define NGX_HTTP_IOTHUB_GATE_MAX_WAIT    300000      /* of one booking */
#define NGX_HTTP_IOTHUB_GATE_SUSPECT     10000
#define NGX_HTTP_IOTHUB_GATE_ALARM       60000


/* until 44 | probe 1 | serial 11 | reason 8; until 0 is an open gate */

typedef struct {
    uint64_t   word;
} ngx_http_iothub_gate_t;


/*
 * The device that was refused last: hash 40 | second of now_ms 24; 0: none.
 */

typedef struct {
    uint64_t   word;
    uint64_t   accepted;      /* when a message was, now_ms; 0: never */
} ngx_http_iothub_gate_suspect_t;


/* when the next one is due, in nanoseconds of now_ms (GCRA) */

typedef struct {
    uint64_t   word;
} ngx_http_iothub_gate_rate_t;


/*
 * Takes a turn of the token bucket that comes within max_wait_ms (MAX_WAIT at
 * the most), now or booked.  rate is in thousandths of a turn per second
 * (80r/m is 1333), 0 is "rate=off"; burst is the size of the bucket, the turns
 * that may be taken at once after a rest, at least 1.  Over all workers and in
 * any time t, no more than rate * t + burst are given.
 *
 * NGX_OK: the turn is the caller's once *wait_ms (0: now) have passed, without
 * asking again.  NGX_AGAIN: none is free so soon, nothing was booked, and
 * *wait_ms is how long it would have been.  So a creation that gets no turn
 * before its deadline is known at once, and those that do get one are served
 * in order.
 */
ngx_int_t ngx_http_iothub_gate_rate_book(ngx_http_iothub_gate_rate_t *gr,
    ngx_uint_t rate, ngx_uint_t burst, ngx_msec_t now_ms,
    ngx_msec_t max_wait_ms, ngx_msec_t *wait_ms);

/*
 * Gives back a booked turn that is not needed.  turn_ms is when it would have
 * come, the caller's now_ms + *wait_ms at the booking; once that time has
 * come, the turn is spent and nothing is changed.
 */
void ngx_http_iothub_gate_rate_return(ngx_http_iothub_gate_rate_t *gr,
    ngx_uint_t rate, ngx_msec_t now_ms, ngx_msec_t turn_ms);

/*
 * May a call go?
 *
 *   OPEN    yes
 *   CLOSED  no; *until becomes the time at which to ask again
 *   PROBING no, but the closing is over and another finds out; the gate may
 *           open at any moment, and *until is when the probe is given up
 *   PROBE   the closing is over, and this caller alone may try.  It reports
 *           by open() or drop() with *probe, or by close(); if it does not
 *           within PROBE_TIME, the next caller becomes the probe
 *
 * *reason becomes why it was closed, with CLOSED and PROBING.  None of the
 * pointers may be NULL; what they point to is changed only as said.
 */
ngx_uint_t ngx_http_iothub_gate_check(ngx_http_iothub_gate_t *gate,
    ngx_msec_t now_ms, ngx_msec_t *until, ngx_uint_t *reason,
    uint64_t *probe);

/*
 * Closes a gate until until_ms (MAX_TIME from now at the most).  It prolongs
 * a closing and never shortens one; it ends a running probe, whose failure
 * this is.  Closing an open gate until now or earlier changes nothing.
 * reason is the caller's, 0 to 255.  Returns NGX_OK if the gate was open,
 * NGX_DECLINED if it was not, or still is.
 */
ngx_int_t ngx_http_iothub_gate_close(ngx_http_iothub_gate_t *gate,
    ngx_msec_t now_ms, ngx_msec_t until_ms, ngx_uint_t reason);

/*
 * Opens a gate, for everybody, on the success of a probe.  NGX_DECLINED:
 * the gate was closed again since, or another has become the probe; nothing
 * was changed.  So the late success of a call from before the closing opens
 * nothing.
 */
ngx_int_t ngx_http_iothub_gate_open(ngx_http_iothub_gate_t *gate,
    uint64_t probe);

/*
 * Gives back a probe that never came to its call: the next caller becomes the
 * probe.  NGX_DECLINED: it was no longer the caller's.
 */
ngx_int_t ngx_http_iothub_gate_drop(ngx_http_iothub_gate_t *gate,
    uint64_t probe, ngx_msec_t now_ms);

/*
 * Gives a probe another PROBE_TIME from now, for calls that take longer (the
 * registry may think for 40 s), and updates *probe.  NGX_DECLINED: it is no
 * longer the caller's.
 */
ngx_int_t ngx_http_iothub_gate_keep(ngx_http_iothub_gate_t *gate,
    uint64_t *probe, ngx_msec_t now_ms);

/*
 * Why the gate was closed last; 0 if it is open.
 */
ngx_uint_t ngx_http_iothub_gate_reason(ngx_http_iothub_gate_t *gate);

/*
 * Refused messages of one device say nothing of the other devices, those of
 * two devices with no success between them do.
 *
 * suspect(): this device was refused now, by messages since since_ms.
 * NGX_OK: another was refused within the SUSPECT time before, and no message
 * was accepted since since_ms; else NGX_DECLINED.
 *
 * suspected(): NGX_OK if this device was refused within the SUSPECT time, and
 * *left_ms is what is left of it, else NGX_DECLINED.
 *
 * trust(): a message was accepted at now_ms; 0: start anew.
 *
 * trusted(): NGX_OK if one was accepted at since_ms or later, else
 * NGX_DECLINED.  The time is kept to some 20 ms.
 */
ngx_int_t ngx_http_iothub_gate_suspect(
    ngx_http_iothub_gate_suspect_t *gs, uint64_t hash, ngx_msec_t now_ms,
    ngx_msec_t since_ms);
ngx_int_t ngx_http_iothub_gate_suspected(
    ngx_http_iothub_gate_suspect_t *gs, uint64_t hash, ngx_msec_t now_ms,
    ngx_msec_t *left_ms);
void ngx_http_iothub_gate_trust(ngx_http_iothub_gate_suspect_t *gs,
    ngx_msec_t now_ms);

ngx_int_t ngx_http_iothub_gate_trusted(ngx_http_iothub_gate_suspect_t *gs,
    ngx_msec_t since_ms);

/*
 * NGX_OK once in ALARM time, over all workers, else NGX_DECLINED.  word is 0
 * at the start, later the time of the last alarm.
 */
ngx_int_t ngx_http_iothub_gate_alarm(uint64_t *word, ngx_msec_t now_ms);


#endif /* _NGX_HTTP_IOTHUB_GATE_H_INCLUDED_ */
