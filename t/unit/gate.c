
/* Copyright (C) the ngx_http_iothub_module authors */

/* Unit test of the gate room. */

#include "tap.h"

#include "ngx_http_iothub_gate.h"


#define OPEN    NGX_HTTP_IOTHUB_GATE_OPEN
#define CLOSED  NGX_HTTP_IOTHUB_GATE_CLOSED
#define PROBE   NGX_HTTP_IOTHUB_GATE_PROBE
#define PROBING NGX_HTTP_IOTHUB_GATE_PROBING

#define NOW     ((ngx_msec_t) 5000000)

#define A       (((uint64_t) 0xaaaaaaaaaa << 24) | 1)
#define B       (((uint64_t) 0xbbbbbbbbbb << 24) | 1)

#define take(gr, rate, burst, now, wait)                                      \
    ngx_http_iothub_gate_rate_book(gr, rate, burst, now, 0, wait)
#define book    ngx_http_iothub_gate_rate_book

#define check(gate, now, until, probe)                                        \
    ngx_http_iothub_gate_check(gate, now, until, &reason, probe)


typedef ngx_http_iothub_gate_t       gate_t;
typedef ngx_http_iothub_gate_rate_t  rate_t;


static ngx_uint_t  reason;


static ngx_uint_t
taken(rate_t *gr, ngx_uint_t rate, ngx_uint_t burst, ngx_msec_t from,
    ngx_msec_t to)
{
    ngx_uint_t  n;
    ngx_msec_t  now, wait;

    n = 0;

    for (now = from; now <= to; now++) {
        while (take(gr, rate, burst, now, &wait) == NGX_OK) {
            n++;
        }
    }

    return n;
}


static void
test_rate(void)
{
    rate_t      gr;
    ngx_uint_t  n;
    ngx_msec_t  wait;

    gr.word = 0;
    wait = 99;

    for (n = 0; n < 1000 && take(&gr, 0, 1, NOW, &wait) == NGX_OK; n++) { }
    is(n, 1000, "rate=off gives turns for ever");
    is(wait, 0, "at once");
    is(gr.word, 0, "and counts none");

    is(taken(&gr, 2000, 5, NOW, NOW), 5, "a burst of 5");
    is(take(&gr, 2000, 5, NOW, &wait), NGX_AGAIN, "and no more");
    is(wait, 500, "until half a second later");
    is(take(&gr, 2000, 5, NOW + 499, &wait), NGX_AGAIN, "not sooner");
    is(wait, 1, "by a millisecond");
    is(take(&gr, 2000, 5, NOW + 500, &wait), NGX_OK, "then there is a turn");
    is(take(&gr, 2000, 5, NOW + 500, &wait), NGX_AGAIN, "one");
    is(taken(&gr, 2000, 5, NOW + 501, NOW + 10500), 20, "2/s in ten seconds");
    is(taken(&gr, 2000, 5, NOW + 20000, NOW + 20000), 5,
       "a rest fills the bucket");
    is(taken(&gr, 2000, 5, NOW + 86400000, NOW + 86400000), 5,
       "and no more than fills it");

    /* 80r/m burst=20 in an hour of waiting as told */

    gr.word = 0;
    n = 0;
    for (wait = NOW; wait <= NOW + 3600000; /* void */ ) {
        ngx_msec_t  ms;

        if (take(&gr, 1333, 20, wait, &ms) == NGX_OK) {
            n++;
            continue;
        }
        wait += ms;
    }
    ok(n <= 4800 + 20 && n >= 4798 + 20, "80r/m burst=20: %d in an hour",
       (int) n);

    gr.word = 0;
    n = taken(&gr, 700000000, 1000, NOW, NOW + 1000);
    ok(n <= 701000 && n > 700000, "700000/s burst=1000: %d in a second",
       (int) n);

    gr.word = 0;
    (void) take(&gr, 666667, 1, NOW, &wait);
    is(take(&gr, 666667, 1, NOW, &wait), NGX_AGAIN, "a turn each 1.5 ms");
    is(wait, 2, "is waited for in whole milliseconds");

    gr.word = 0;
    is(taken(&gr, 1000, 0, NOW, NOW), 1, "a burst of 0 is one of 1");

    gr.word = 0;
    is(taken(&gr, 1, 1, NOW, NOW + 999999), 1, "one in 1000 seconds");
    is(taken(&gr, 1, 1, NOW + 1000000, NOW + 1000000), 1, "then another");

    gr.word = 0;
    is(take(&gr, 1, (ngx_uint_t) -1, NOW, &wait), NGX_OK, "the largest burst");
    gr.word = 0;
    is(take(&gr, (ngx_uint_t) -1, 1, NOW, &wait), NGX_OK, "the largest rate");

    /* words of another clock */

    gr.word = ~(uint64_t) 0;
    is(taken(&gr, 1000, 3, NOW, NOW), 3, "a time that cannot be is no time");
    gr.word = (uint64_t) 9 * 86400 * 1000000000;
    is(taken(&gr, 1000, 3, NOW, NOW), 3, "nor is one in nine days");

    /* a worker whose clock is behind gets nothing that it should not */

    gr.word = 0;
    (void) taken(&gr, 1000, 3, NOW, NOW);
    is(take(&gr, 1000, 3, NOW - 2000, &wait), NGX_AGAIN, "a clock behind");
    is(wait, 3000, "waits longer");
}


static void
test_book(void)
{
    rate_t      gr;
    ngx_uint_t  i, good;
    ngx_msec_t  wait;

    gr.word = 0;
    good = 0;

    for (i = 0; i < 6; i++) {
        good += book(&gr, 1000, 2, NOW, 4000, &wait) == NGX_OK
                && wait == (i < 2 ? 0 : (i - 1) * 1000);
    }

    is(good, 6, "turns are booked one after the other");
    is(book(&gr, 1000, 2, NOW, 4000, &wait), NGX_AGAIN,
       "but not past the deadline");
    is(wait, 5000, "it is said how long it would be");
    is(take(&gr, 1000, 2, NOW + 3999, &wait), NGX_AGAIN,
       "who asks without booking waits behind");
    is(take(&gr, 1000, 2, NOW + 5000, &wait), NGX_OK, "and gets the next");

    ngx_http_iothub_gate_rate_return(&gr, 1000, NOW + 5000, NOW + 5000);
    is(take(&gr, 1000, 2, NOW + 5000, &wait), NGX_AGAIN,
       "a turn that has come cannot be returned");

    is(book(&gr, 1000, 2, NOW + 5000, 1000, &wait), NGX_OK, "one is booked");
    is(book(&gr, 1000, 2, NOW + 5000, 1000, &wait), NGX_AGAIN, "none is left");
    ngx_http_iothub_gate_rate_return(&gr, 1000, NOW + 5500, NOW + 6000);
    is(book(&gr, 1000, 2, NOW + 5500, 1000, &wait), NGX_OK,
       "one that has not come can");
    is(wait, 500, "the next gets it at its time");

    gr.word = 0;
    ngx_http_iothub_gate_rate_return(&gr, 1000, NOW, NOW + 1);
    is(gr.word, 0, "there is nothing to return to a full bucket");

    gr.word = 0;
    good = 0;
    while (book(&gr, 1000, 1, NOW, 86400000, &wait) == NGX_OK) {
        good++;
    }
    is(good, 301, "nobody books more than five minutes ahead");
    is(taken(&gr, 1000, 1, NOW, NOW + 310000), 10,
       "and what is booked counts");
}


static void
test_gate(void)
{
    gate_t      gate;
    uint64_t    p1, p2;
    ngx_msec_t  until;

    gate.word = 0;
    until = 0;
    p1 = p2 = 0;

    is(check(&gate, NOW, &until, &p1), OPEN, "a new gate is open");
    is(ngx_http_iothub_gate_reason(&gate), 0, "for no reason");

    is(ngx_http_iothub_gate_close(&gate, NOW, NOW, 7), NGX_DECLINED,
       "closing until now");
    is(check(&gate, NOW, &until, &p1), OPEN, "closes not");

    is(ngx_http_iothub_gate_close(&gate, NOW, NOW + 1000, 7), NGX_OK,
       "the first closes");
    is(ngx_http_iothub_gate_close(&gate, NOW, NOW + 1000, 7), NGX_DECLINED,
       "the second finds it closed");
    is(check(&gate, NOW, &until, &p1), CLOSED, "closed");
    is(until, NOW + 1000, "until that time");
    is(reason, 7, "with its reason");
    is(ngx_http_iothub_gate_reason(&gate), 7, "for that reason");

    ngx_http_iothub_gate_close(&gate, NOW, NOW + 500, 8);
    (void) check(&gate, NOW, &until, &p1);
    is(until, NOW + 1000, "a closing is never shortened");
    is(ngx_http_iothub_gate_reason(&gate), 7, "and keeps its reason");

    ngx_http_iothub_gate_close(&gate, NOW, NOW + 2000, 8);
    (void) check(&gate, NOW, &until, &p1);
    is(until, NOW + 2000, "but prolonged");
    is(ngx_http_iothub_gate_reason(&gate), 8, "for the new reason");

    is(check(&gate, NOW + 1999, &until, &p1), CLOSED, "to the end");
    is(p1, 0, "nobody has the probe");
    is(check(&gate, NOW + 2000, &until, &p1), PROBE, "then one probes");
    is(check(&gate, NOW + 2000, &until, &p2), PROBING, "the others wait");
    is(until, NOW + 7000, "for five seconds at the most");
    is(ngx_http_iothub_gate_reason(&gate), 8, "for the same reason");

    is(ngx_http_iothub_gate_open(&gate, p1), NGX_OK, "the probe opens");
    is(check(&gate, NOW + 2001, &until, &p2), OPEN, "for everybody");
    is(ngx_http_iothub_gate_reason(&gate), 0, "no reason any more");
    is(ngx_http_iothub_gate_open(&gate, p1), NGX_DECLINED, "once");

    /* the same again at the same time */

    gate.word = 0;
    ngx_http_iothub_gate_close(&gate, NOW, NOW + 2000, 8);
    (void) check(&gate, NOW + 2000, &until, &p1);
    (void) ngx_http_iothub_gate_open(&gate, p1);
    ngx_http_iothub_gate_close(&gate, NOW, NOW + 2000, 8);
    is(check(&gate, NOW + 2000, &until, &p2), PROBE, "closed and probed again");
    is(ngx_http_iothub_gate_open(&gate, p1), NGX_DECLINED,
       "the old probe is not the new one");
    is(ngx_http_iothub_gate_open(&gate, p2), NGX_OK, "the new one opens");

    /* a probe that fails */

    ngx_http_iothub_gate_close(&gate, NOW, NOW + 1000, 1);
    is(check(&gate, NOW + 1000, &until, &p1), PROBE, "a probe");
    ngx_http_iothub_gate_close(&gate, NOW + 1100, NOW + 3000, 2);
    is(check(&gate, NOW + 1100, &until, &p2), CLOSED, "that failed");
    is(until, NOW + 3000, "sooner than its own time would have ended");
    is(ngx_http_iothub_gate_open(&gate, p1), NGX_DECLINED,
       "cannot open afterwards");
    is(ngx_http_iothub_gate_drop(&gate, p1, NOW + 1200), NGX_DECLINED,
       "nor be given back");
    is(ngx_http_iothub_gate_keep(&gate, &p1, NOW + 1200), NGX_DECLINED,
       "nor go on");

    /* a probe that nobody hears of again */

    is(check(&gate, NOW + 3000, &until, &p1), PROBE, "a probe that vanishes");
    is(check(&gate, NOW + 7999, &until, &p2), PROBING, "is waited for");
    is(check(&gate, NOW + 8000, &until, &p2), PROBE, "not for ever");
    is(ngx_http_iothub_gate_open(&gate, p1), NGX_DECLINED,
       "the first has lost it");
    is(ngx_http_iothub_gate_open(&gate, p2), NGX_OK, "the second has it");

    /* one that takes long, one that never started */

    ngx_http_iothub_gate_close(&gate, NOW, NOW + 1, 3);
    is(check(&gate, NOW + 1, &until, &p1), PROBE, "a slow probe");
    is(ngx_http_iothub_gate_keep(&gate, &p1, NOW + 4000), NGX_OK, "goes on");
    is(check(&gate, NOW + 8000, &until, &p2), PROBING, "is waited for");
    is(ngx_http_iothub_gate_drop(&gate, p1, NOW + 8001), NGX_OK,
       "is given back");
    is(check(&gate, NOW + 8001, &until, &p2), PROBE, "the next is the probe");
    is(ngx_http_iothub_gate_reason(&gate), 3, "for the first reason");
    ngx_http_iothub_gate_close(&gate, NOW + 8002, NOW + 8000, 4);
    is(check(&gate, NOW + 8002, &until, &p1), PROBE,
       "a failure that asks for no wait makes the next the probe");
    is(ngx_http_iothub_gate_open(&gate, p2), NGX_DECLINED, "not the same");

    /* impossible times */

    gate.word = 0;
    ngx_http_iothub_gate_close(&gate, NOW, (ngx_msec_t) -1, 0x1ff);
    is(check(&gate, NOW, &until, &p1), CLOSED, "closed for ever");
    is(until, NOW + 86400000, "is for a day");
    is(ngx_http_iothub_gate_reason(&gate), 255, "a reason has eight bits");
    is(check(&gate, NOW - 1000, &until, &p1), CLOSED, "a clock behind");

    gate.word = ~(uint64_t) 0;
    is(check(&gate, NOW, &until, &p1), PROBE, "junk is probed");
    is(ngx_http_iothub_gate_open(&gate, p1), NGX_OK, "and opens");

    gate.word = 0;
    ngx_http_iothub_gate_close(&gate, 0, 1, 0);
    is(check(&gate, 0, &until, &p1), CLOSED, "time may begin at 0");
    is(check(&gate, 1, &until, &p1), PROBE, "and go on");
    is(ngx_http_iothub_gate_drop(&gate, p1, 0), NGX_OK, "and back");
    is(check(&gate, 1, &until, &p1), PROBE, "without opening a gate");
}


static void
test_suspect(void)
{
    ngx_msec_t                      left;
    ngx_http_iothub_gate_suspect_t  gs;

    gs.word = 0;
    gs.accepted = 0;
    left = 0;

    is(ngx_http_iothub_gate_suspected(&gs, A, NOW, &left), NGX_DECLINED,
       "nobody is suspected at the start");
    is(ngx_http_iothub_gate_suspect(&gs, A, NOW, NOW), NGX_DECLINED,
       "the first");
    is(ngx_http_iothub_gate_suspected(&gs, A, NOW, &left), NGX_OK,
       "is suspected");
    is(left, 10000, "for ten seconds");
    is(ngx_http_iothub_gate_suspected(&gs, A, NOW - 1000, &left), NGX_OK,
       "by a clock behind, too");
    is(ngx_http_iothub_gate_suspected(&gs, A, NOW + 9999, &left), NGX_OK,
       "to the end");
    is(ngx_http_iothub_gate_suspected(&gs, A, NOW + 10000, &left),
       NGX_DECLINED, "no longer");
    is(ngx_http_iothub_gate_suspected(&gs, B, NOW, &left), NGX_DECLINED,
       "another is not");

    is(ngx_http_iothub_gate_suspect(&gs, A, NOW + 5000, NOW), NGX_DECLINED,
       "the same once more");
    is(ngx_http_iothub_gate_suspected(&gs, A, NOW + 14999, &left), NGX_OK,
       "prolongs it");
    is(ngx_http_iothub_gate_suspect(&gs, B, NOW + 14999, NOW), NGX_OK,
       "the second device");
    is(ngx_http_iothub_gate_suspect(&gs, A, NOW + 24999, NOW), NGX_DECLINED,
       "one long after the other");

    ngx_http_iothub_gate_trust(&gs, NOW + 24999);
    is(ngx_http_iothub_gate_suspected(&gs, A, NOW + 24999, &left),
       NGX_DECLINED, "a success clears");
    is(ngx_http_iothub_gate_suspect(&gs, B, NOW + 24999, NOW), NGX_DECLINED,
       "and the next is the first again");

    is(ngx_http_iothub_gate_suspect(&gs, A, NOW + 25100, NOW + 24000),
       NGX_DECLINED, "another, but a message was accepted meanwhile");
    is(ngx_http_iothub_gate_suspect(&gs, B, NOW + 25200, NOW + 25100),
       NGX_OK, "another, and none was since");

    is(ngx_http_iothub_gate_trusted(&gs, NOW + 24999), NGX_OK,
       "accepted since then");
    is(ngx_http_iothub_gate_trusted(&gs, NOW + 25100), NGX_DECLINED,
       "but not since then");
    ngx_http_iothub_gate_trust(&gs, NOW + 25010);
    is(gs.accepted, NOW + 24999, "it is not written each time");
    ngx_http_iothub_gate_trust(&gs, NOW + 25100);
    is(ngx_http_iothub_gate_trusted(&gs, NOW + 25100), NGX_OK, "accepted now");
    ngx_http_iothub_gate_trust(&gs, 0);
    is(ngx_http_iothub_gate_trusted(&gs, 0), NGX_DECLINED, "anew: never");

    gs.word = 0;
    (void) ngx_http_iothub_gate_suspect(&gs, 0, 0, 0);
    is(ngx_http_iothub_gate_suspected(&gs, 0, 0, &left), NGX_OK,
       "a hash and a time of 0");
}


static void
test_alarm(void)
{
    uint64_t  word;

    word = 0;

    is(ngx_http_iothub_gate_alarm(&word, NOW), NGX_OK, "an alarm");
    is(ngx_http_iothub_gate_alarm(&word, NOW), NGX_DECLINED, "once");
    is(ngx_http_iothub_gate_alarm(&word, NOW - 1000), NGX_DECLINED,
       "by a clock behind, too");
    is(ngx_http_iothub_gate_alarm(&word, NOW + 59999), NGX_DECLINED,
       "for a minute");
    is(ngx_http_iothub_gate_alarm(&word, NOW + 60000), NGX_OK, "then again");

    word = NOW * 1000;
    is(ngx_http_iothub_gate_alarm(&word, NOW), NGX_OK, "junk mutes nothing");
}


int
main(void)
{
    test_rate();
    test_book();
    test_gate();
    test_suspect();
    test_alarm();

    return done_testing();
}
