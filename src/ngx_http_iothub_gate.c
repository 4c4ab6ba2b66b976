
/* Copyright (C) the ngx_http_iothub_module authors */


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_http_iothub_gate.h"


#define NGX_HTTP_IOTHUB_GATE_REASON        0xff
#define NGX_HTTP_IOTHUB_GATE_SERIAL        ((uint64_t) 0x7ff << 8)
#define NGX_HTTP_IOTHUB_GATE_SERIAL_ONE    ((uint64_t) 1 << 8)
#define NGX_HTTP_IOTHUB_GATE_PROBED        ((uint64_t) 1 << 19)
#define NGX_HTTP_IOTHUB_GATE_UNTIL_SHIFT   20

/* how exactly it is known when a message was accepted last, ms */
#define NGX_HTTP_IOTHUB_GATE_TRUST         20

#define NGX_HTTP_IOTHUB_GATE_SECOND_BITS   24
#define NGX_HTTP_IOTHUB_GATE_SECOND_MASK   0xffffff

/* how far the cached clocks of two workers may be apart, ms */
#define NGX_HTTP_IOTHUB_GATE_SKEW          60000

#define NGX_HTTP_IOTHUB_GATE_NSEC          ((uint64_t) 1000000)

/* 31 years in ns: sums of two of these and a clock do not overflow */
#define NGX_HTTP_IOTHUB_GATE_MAX_LIMIT     ((uint64_t) 1000000000000000000)


static uint64_t ngx_http_iothub_gate_interval(ngx_uint_t rate);
static ngx_uint_t ngx_http_iothub_gate_swap(uint64_t *word, uint64_t *old,
    uint64_t value);
static uint64_t ngx_http_iothub_gate_word(uint64_t old, uint64_t until,
    uint64_t low);
static uint64_t ngx_http_iothub_gate_suspect_word(uint64_t hash,
    ngx_msec_t now_ms);
static ngx_int_t ngx_http_iothub_gate_left(uint64_t word, ngx_msec_t now_ms,
    ngx_msec_t *left_ms);
static ngx_uint_t ngx_http_iothub_gate_holds(uint64_t word, uint64_t now);


/*
 * GCRA: the word is the time at which the bucket will be full again.  Taking
 * a turn moves it on by one interval; a turn is due while the word is no more
 * than "burst" intervals ahead.
 */

ngx_int_t
ngx_http_iothub_gate_rate_book(ngx_http_iothub_gate_rate_t *gr,
    ngx_uint_t rate, ngx_uint_t burst, ngx_msec_t now_ms,
    ngx_msec_t max_wait_ms, ngx_msec_t *wait_ms)
{
    uint64_t  old, now, full, limit, farthest, interval;

    *wait_ms = 0;

    if (rate == 0) {
        return NGX_OK;
    }

    max_wait_ms = ngx_min(max_wait_ms, NGX_HTTP_IOTHUB_GATE_MAX_WAIT);

    now = (uint64_t) now_ms * NGX_HTTP_IOTHUB_GATE_NSEC;
    interval = ngx_http_iothub_gate_interval(rate);
    burst = ngx_max(burst, 1);
    limit = (burst > NGX_HTTP_IOTHUB_GATE_MAX_LIMIT / interval)
                ? NGX_HTTP_IOTHUB_GATE_MAX_LIMIT : burst * interval;

    farthest = now + limit
               + (NGX_HTTP_IOTHUB_GATE_MAX_WAIT + NGX_HTTP_IOTHUB_GATE_SKEW)
                 * NGX_HTTP_IOTHUB_GATE_NSEC;

    old = __atomic_load_n(&gr->word, __ATOMIC_ACQUIRE);

    do {
        full = old;

        /* later than any booking can reach: no time of this clock and rate */

        if (full < now || full > farthest) {
            full = now;
        }

        full += interval;

        *wait_ms = (full <= now + limit) ? 0
                       : (full - now - limit + NGX_HTTP_IOTHUB_GATE_NSEC - 1)
                         / NGX_HTTP_IOTHUB_GATE_NSEC;

        if (*wait_ms > max_wait_ms) {
            return NGX_AGAIN;
        }

    } while (!ngx_http_iothub_gate_swap(&gr->word, &old, full));

    return NGX_OK;
}


void
ngx_http_iothub_gate_rate_return(ngx_http_iothub_gate_rate_t *gr,
    ngx_uint_t rate, ngx_msec_t now_ms, ngx_msec_t turn_ms)
{
    uint64_t  old, interval;

    /*
     * After its time, the bucket may have been full since without the turn,
     * and putting one more into it would exceed the burst.
     */

    if (rate == 0 || now_ms >= turn_ms) {
        return;
    }

    interval = ngx_http_iothub_gate_interval(rate);
    old = __atomic_load_n(&gr->word, __ATOMIC_ACQUIRE);

    do {
        if (old < interval) {
            return;
        }

    } while (!ngx_http_iothub_gate_swap(&gr->word, &old, old - interval));
}


ngx_uint_t
ngx_http_iothub_gate_check(ngx_http_iothub_gate_t *gate, ngx_msec_t now_ms,
    ngx_msec_t *until, ngx_uint_t *reason, uint64_t *probe)
{
    uint64_t  old, word;

    old = __atomic_load_n(&gate->word, __ATOMIC_ACQUIRE);

    do {
        if (old >> NGX_HTTP_IOTHUB_GATE_UNTIL_SHIFT == 0) {
            return NGX_HTTP_IOTHUB_GATE_OPEN;
        }

        if (ngx_http_iothub_gate_holds(old, now_ms)) {
            *until = old >> NGX_HTTP_IOTHUB_GATE_UNTIL_SHIFT;
            *reason = old & NGX_HTTP_IOTHUB_GATE_REASON;
            return (old & NGX_HTTP_IOTHUB_GATE_PROBED)
                   ? NGX_HTTP_IOTHUB_GATE_PROBING
                   : NGX_HTTP_IOTHUB_GATE_CLOSED;
        }

        word = ngx_http_iothub_gate_word(old,
                                 now_ms + NGX_HTTP_IOTHUB_GATE_PROBE_TIME,
                                 NGX_HTTP_IOTHUB_GATE_PROBED
                                 | (old & NGX_HTTP_IOTHUB_GATE_REASON));

    } while (!ngx_http_iothub_gate_swap(&gate->word, &old, word));

    *probe = word;

    return NGX_HTTP_IOTHUB_GATE_PROBE;
}


ngx_int_t
ngx_http_iothub_gate_close(ngx_http_iothub_gate_t *gate, ngx_msec_t now_ms,
    ngx_msec_t until_ms, ngx_uint_t reason)
{
    uint64_t  old, word;

    until_ms = ngx_max(until_ms, now_ms);
    until_ms = ngx_min(until_ms, now_ms + NGX_HTTP_IOTHUB_GATE_MAX_TIME);

    old = __atomic_load_n(&gate->word, __ATOMIC_ACQUIRE);

    do {
        if (!(old & NGX_HTTP_IOTHUB_GATE_PROBED)) {

            if (until_ms == now_ms) {
                return NGX_DECLINED;
            }

            if (ngx_http_iothub_gate_holds(old, now_ms)
                && old >> NGX_HTTP_IOTHUB_GATE_UNTIL_SHIFT >= until_ms)
            {
                return NGX_DECLINED;
            }
        }

        word = ngx_http_iothub_gate_word(old, until_ms,
                                         reason & NGX_HTTP_IOTHUB_GATE_REASON);

    } while (!ngx_http_iothub_gate_swap(&gate->word, &old, word));

    return (old >> NGX_HTTP_IOTHUB_GATE_UNTIL_SHIFT == 0) ? NGX_OK
                                                          : NGX_DECLINED;
}


ngx_int_t
ngx_http_iothub_gate_open(ngx_http_iothub_gate_t *gate, uint64_t probe)
{
    uint64_t  word;

    /* the serial stays, so that an old probe never equals a new one */

    word = probe & NGX_HTTP_IOTHUB_GATE_SERIAL;

    return ngx_http_iothub_gate_swap(&gate->word, &probe, word)
           ? NGX_OK : NGX_DECLINED;
}


ngx_int_t
ngx_http_iothub_gate_drop(ngx_http_iothub_gate_t *gate, uint64_t probe,
    ngx_msec_t now_ms)
{
    uint64_t  word;

    word = ngx_http_iothub_gate_word(probe, now_ms,
                                     probe & NGX_HTTP_IOTHUB_GATE_REASON);

    return ngx_http_iothub_gate_swap(&gate->word, &probe, word)
           ? NGX_OK : NGX_DECLINED;
}


ngx_int_t
ngx_http_iothub_gate_keep(ngx_http_iothub_gate_t *gate, uint64_t *probe,
    ngx_msec_t now_ms)
{
    uint64_t  old, word;

    old = *probe;

    word = ngx_http_iothub_gate_word(old,
                                 now_ms + NGX_HTTP_IOTHUB_GATE_PROBE_TIME,
                                 NGX_HTTP_IOTHUB_GATE_PROBED
                                 | (old & NGX_HTTP_IOTHUB_GATE_REASON));

    if (!ngx_http_iothub_gate_swap(&gate->word, &old, word)) {
        return NGX_DECLINED;
    }

    *probe = word;

    return NGX_OK;
}


ngx_uint_t
ngx_http_iothub_gate_reason(ngx_http_iothub_gate_t *gate)
{
    return __atomic_load_n(&gate->word, __ATOMIC_ACQUIRE)
           & NGX_HTTP_IOTHUB_GATE_REASON;
}


ngx_int_t
ngx_http_iothub_gate_suspect(ngx_http_iothub_gate_suspect_t *gs,
    uint64_t hash, ngx_msec_t now_ms, ngx_msec_t since_ms)
{
    uint64_t    old, word;
    ngx_msec_t  left_ms;

    word = ngx_http_iothub_gate_suspect_word(hash, now_ms);
    old = __atomic_exchange_n(&gs->word, word, __ATOMIC_ACQ_REL);

    /* refused while others were accepted: it is the device */

    if (old == 0
        || ngx_http_iothub_gate_trusted(gs, since_ms) == NGX_OK
        || (old ^ word) >> NGX_HTTP_IOTHUB_GATE_SECOND_BITS == 0
        || ngx_http_iothub_gate_left(old, now_ms, &left_ms) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_gate_suspected(ngx_http_iothub_gate_suspect_t *gs,
    uint64_t hash, ngx_msec_t now_ms, ngx_msec_t *left_ms)
{
    uint64_t  word;

    word = __atomic_load_n(&gs->word, __ATOMIC_ACQUIRE);

    if (word == 0
        || (word ^ ngx_http_iothub_gate_suspect_word(hash, now_ms))
           >> NGX_HTTP_IOTHUB_GATE_SECOND_BITS
           != 0)
    {
        return NGX_DECLINED;
    }

    return ngx_http_iothub_gate_left(word, now_ms, left_ms);
}


void
ngx_http_iothub_gate_trust(ngx_http_iothub_gate_suspect_t *gs,
    ngx_msec_t now_ms)
{
    uint64_t  accepted;

    /* after every success: the line is to stay shared most of the time */

    accepted = __atomic_load_n(&gs->accepted, __ATOMIC_RELAXED);

    if (now_ms == 0 || now_ms - accepted > NGX_HTTP_IOTHUB_GATE_TRUST) {
        __atomic_store_n(&gs->accepted, now_ms, __ATOMIC_RELEASE);
    }

    if (__atomic_load_n(&gs->word, __ATOMIC_RELAXED)) {
        __atomic_store_n(&gs->word, 0, __ATOMIC_RELEASE);
    }
}


ngx_int_t
ngx_http_iothub_gate_trusted(ngx_http_iothub_gate_suspect_t *gs,
    ngx_msec_t since_ms)
{
    uint64_t  accepted;

    accepted = __atomic_load_n(&gs->accepted, __ATOMIC_ACQUIRE);

    return (accepted
            && (ngx_msec_int_t) (accepted + NGX_HTTP_IOTHUB_GATE_TRUST
                                 - since_ms)
               >= 0)
           ? NGX_OK : NGX_DECLINED;
}


ngx_int_t
ngx_http_iothub_gate_alarm(uint64_t *word, ngx_msec_t now_ms)
{
    uint64_t  old, now;

    now = ngx_max(now_ms, 1);
    old = __atomic_load_n(word, __ATOMIC_ACQUIRE);

    if (old && now - old < NGX_HTTP_IOTHUB_GATE_ALARM) {
        return NGX_DECLINED;
    }

    /* the cached clock of another worker may be ahead of this one's */

    if (old > now && old - now < NGX_HTTP_IOTHUB_GATE_SKEW) {
        return NGX_DECLINED;
    }

    return ngx_http_iothub_gate_swap(word, &old, now) ? NGX_OK : NGX_DECLINED;
}


/* rounded up, so that the rate is never exceeded */

static uint64_t
ngx_http_iothub_gate_interval(ngx_uint_t rate)
{
    uint64_t  n;

    n = (uint64_t) 1000 * 1000 * NGX_HTTP_IOTHUB_GATE_NSEC;

    return (rate >= n) ? 1 : (n + rate - 1) / rate;
}


/* sets *old to what the word is, if it is something else than *old */

static ngx_uint_t
ngx_http_iothub_gate_swap(uint64_t *word, uint64_t *old, uint64_t value)
{
    return __atomic_compare_exchange_n(word, old, value, 0, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}


static uint64_t
ngx_http_iothub_gate_word(uint64_t old, uint64_t until, uint64_t low)
{
    uint64_t  serial;

    serial = (old + NGX_HTTP_IOTHUB_GATE_SERIAL_ONE)
             & NGX_HTTP_IOTHUB_GATE_SERIAL;

    /* a time of 0 would be an open gate */

    return ngx_max(until, 1) << NGX_HTTP_IOTHUB_GATE_UNTIL_SHIFT
           | serial | low;
}


static uint64_t
ngx_http_iothub_gate_suspect_word(uint64_t hash, ngx_msec_t now_ms)
{
    uint64_t  second;

    second = (now_ms / 1000) & NGX_HTTP_IOTHUB_GATE_SECOND_MASK;

    /* never 0, which is "none" */

    return (hash >> NGX_HTTP_IOTHUB_GATE_SECOND_BITS
            << NGX_HTTP_IOTHUB_GATE_SECOND_BITS)
           | ngx_max(second, 1);
}


static ngx_int_t
ngx_http_iothub_gate_left(uint64_t word, ngx_msec_t now_ms,
    ngx_msec_t *left_ms)
{
    uint64_t  age;

    age = (now_ms / 1000 - word) & NGX_HTTP_IOTHUB_GATE_SECOND_MASK;

    /* set by a worker whose cached clock was ahead */

    if (age == NGX_HTTP_IOTHUB_GATE_SECOND_MASK) {
        age = 0;
    }

    if (age * 1000 >= NGX_HTTP_IOTHUB_GATE_SUSPECT) {
        return NGX_DECLINED;
    }

    *left_ms = NGX_HTTP_IOTHUB_GATE_SUSPECT - age * 1000;

    return NGX_OK;
}


static ngx_uint_t
ngx_http_iothub_gate_holds(uint64_t word, uint64_t now)
{
    uint64_t  until;

    until = word >> NGX_HTTP_IOTHUB_GATE_UNTIL_SHIFT;

    return now < until
           && until - now <= NGX_HTTP_IOTHUB_GATE_MAX_TIME
                             + NGX_HTTP_IOTHUB_GATE_SKEW;
}
