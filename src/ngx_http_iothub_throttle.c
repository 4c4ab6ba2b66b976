
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_throttle.h"


/* milliseconds */

#define NGX_HTTP_IOTHUB_THROTTLE_POLL_MIN     25
#define NGX_HTTP_IOTHUB_THROTTLE_POLL_MAX     200
#define NGX_HTTP_IOTHUB_THROTTLE_JITTER       25

#define NGX_HTTP_IOTHUB_THROTTLE_QUOTA        60000
#define NGX_HTTP_IOTHUB_THROTTLE_CREDENTIALS  10000
#define NGX_HTTP_IOTHUB_THROTTLE_SILENT       5000
#define NGX_HTTP_IOTHUB_THROTTLE_QUIET        60000

/* a time that grows does so up to eight times itself */

#define NGX_HTTP_IOTHUB_THROTTLE_DOUBLINGS    3


static ngx_int_t ngx_http_iothub_throttle_busy(
    ngx_http_iothub_throttle_t *th, ngx_http_iothub_result_e reason,
    ngx_msec_t left, ngx_uint_t probing);
static ngx_uint_t ngx_http_iothub_throttle_closes(
    ngx_http_iothub_throttle_t *th, ngx_http_iothub_operation_e operation,
    ngx_http_iothub_action_e action, ngx_uint_t throttled);
static void ngx_http_iothub_throttle_close(ngx_http_iothub_throttle_t *th,
    ngx_http_iothub_gate_e which, ngx_msec_t time,
    ngx_http_iothub_result_e reason);
static void ngx_http_iothub_throttle_open(ngx_http_iothub_throttle_t *th,
    ngx_http_iothub_gate_e which);
static ngx_msec_t ngx_http_iothub_throttle_since(
    ngx_http_iothub_throttle_t *th);
static void ngx_http_iothub_throttle_end(ngx_http_iothub_throttle_t *th,
    ngx_http_iothub_gate_e which);


/* whose calls a gate holds back, by ngx_http_iothub_gate_e */

static const struct {
    const char                   *name;
    ngx_uint_t                    operations;
} ngx_http_iothub_throttle_gates[] = {

    { "registry", NGX_HTTP_IOTHUB_OPERATION_CREATE
                  |NGX_HTTP_IOTHUB_OPERATION_ASK },
    { "send", NGX_HTTP_IOTHUB_OPERATION_SEND },
    { "quota", NGX_HTTP_IOTHUB_OPERATION_SEND }
};


/* what closes a gate, and for how long unless the hub says for how long */

static const struct {
    ngx_uint_t                    operations;
    ngx_http_iothub_action_e      action;
    ngx_http_iothub_gate_e        gate;
    ngx_msec_t                    time;
    ngx_uint_t                    doublings;
    ngx_http_iothub_result_e      reason;
} ngx_http_iothub_throttle_closings[] = {

    { NGX_HTTP_IOTHUB_OPERATION_SEND, NGX_HTTP_IOTHUB_ACTION_THROTTLED,
      NGX_HTTP_IOTHUB_GATE_SEND, 1000, NGX_HTTP_IOTHUB_THROTTLE_DOUBLINGS,
      NGX_HTTP_IOTHUB_THROTTLED },

    { NGX_HTTP_IOTHUB_OPERATION_SEND, NGX_HTTP_IOTHUB_ACTION_QUOTA,
      NGX_HTTP_IOTHUB_GATE_QUOTA, NGX_HTTP_IOTHUB_THROTTLE_QUOTA, 0,
      NGX_HTTP_IOTHUB_QUOTA },

    { NGX_HTTP_IOTHUB_OPERATION_CREATE|NGX_HTTP_IOTHUB_OPERATION_ASK,
      NGX_HTTP_IOTHUB_ACTION_THROTTLED, NGX_HTTP_IOTHUB_GATE_REGISTRY, 5000,
      NGX_HTTP_IOTHUB_THROTTLE_DOUBLINGS, NGX_HTTP_IOTHUB_CREATION_LIMITED },

    { NGX_HTTP_IOTHUB_OPERATION_CREATE|NGX_HTTP_IOTHUB_OPERATION_ASK,
      NGX_HTTP_IOTHUB_ACTION_QUOTA, NGX_HTTP_IOTHUB_GATE_REGISTRY,
      NGX_HTTP_IOTHUB_THROTTLE_QUOTA, 0, NGX_HTTP_IOTHUB_QUOTA }
};


/*
 * What is said of a delivery that a closed gate holds back, by the gate's
 * reason.  Only what passes by itself is waited for: a sender learns at once
 * of what somebody has to put right.
 */

static const struct {
    ngx_http_iothub_result_e      reason;
    ngx_uint_t                    passes;
    const char                   *detail;
} ngx_http_iothub_throttle_reasons[] = {

    { NGX_HTTP_IOTHUB_THROTTLED, 1, "the hub throttles messages" },

    { NGX_HTTP_IOTHUB_CREATION_LIMITED, 1,
      "the identity is missing, and the hub throttles its registry" },

    { NGX_HTTP_IOTHUB_QUOTA, 0, "the hub's quota is spent" },

    { NGX_HTTP_IOTHUB_CREDENTIALS, 0,
      "the hub refuses every key, or the policy lacks a right" },

    { NGX_HTTP_IOTHUB_UNAVAILABLE, 1,
      "the identity is missing, and the registry does not answer" }
};


ngx_int_t
ngx_http_iothub_throttle_enter(ngx_http_iothub_throttle_t *th,
    ngx_http_iothub_operation_e operation)
{
    ngx_uint_t              i, state, reason;
    ngx_msec_t              until, left;
    ngx_http_iothub_shm_t  *shm;

    shm = th->hub->shm;

    if (operation == NGX_HTTP_IOTHUB_OPERATION_SEND && th->sent == 0) {
        th->sent = ngx_current_msec;
    }

    if (operation == NGX_HTTP_IOTHUB_OPERATION_SEND
        && ngx_http_iothub_throttle_suspected(th) == NGX_OK)
    {
        return NGX_BUSY;
    }

    for (i = 0; i < NGX_HTTP_IOTHUB_GATES; i++) {

        if (!(ngx_http_iothub_throttle_gates[i].operations & operation)
            || th->probes[i])
        {
            continue;
        }

        until = 0;
        reason = 0;

        state = ngx_http_iothub_gate_check(&shm->gates[i], ngx_current_msec,
                                           &until, &reason, &th->probes[i]);

        if (state == NGX_HTTP_IOTHUB_GATE_OPEN) {
            continue;
        }

        if (state == NGX_HTTP_IOTHUB_GATE_PROBE) {

            ngx_log_debug2(NGX_LOG_DEBUG_HTTP, th->log, 0,
                           "iothub gate probed, hub: \"%V\", gate: %s",
                           &th->hub->name,
                           ngx_http_iothub_throttle_gates[i].name);

            th->probing = 1;
            continue;
        }

        /* a probe that is held back itself is none */

        ngx_http_iothub_throttle_drop(th);

        left = (until > ngx_current_msec) ? until - ngx_current_msec : 0;

        return ngx_http_iothub_throttle_busy(th, reason, left,
                                     state == NGX_HTTP_IOTHUB_GATE_PROBING);
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_throttle_suspected(ngx_http_iothub_throttle_t *th)
{
    ngx_msec_t  left;

    if (ngx_http_iothub_gate_suspected(&th->hub->shm->suspect, th->hash,
                                       ngx_current_msec, &left)
        != NGX_OK)
    {
        return NGX_DECLINED;
    }

    (void) ngx_http_iothub_throttle_busy(th, NGX_HTTP_IOTHUB_CREDENTIALS,
                                         left, 0);
    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_throttle_busy(ngx_http_iothub_throttle_t *th,
    ngx_http_iothub_result_e reason, ngx_msec_t left, ngx_uint_t probing)
{
    ngx_uint_t  i, n;

    n = sizeof(ngx_http_iothub_throttle_reasons)
        / sizeof(ngx_http_iothub_throttle_reasons[0]);

    for (i = 0; i < n - 1; i++) {
        if (ngx_http_iothub_throttle_reasons[i].reason == reason) {
            break;
        }
    }

    th->result = ngx_http_iothub_throttle_reasons[i].reason;
    th->detail = ngx_http_iothub_throttle_reasons[i].detail;
    th->retry_after = (left + 999) / 1000;
    th->wait = 0;

    if (!ngx_http_iothub_throttle_reasons[i].passes) {
        return NGX_BUSY;
    }

    if (probing) {

        /* its outcome may come at any moment, from any worker */

        left = NGX_HTTP_IOTHUB_THROTTLE_POLL_MIN << ngx_min(th->polls, 3);
        left = ngx_min(left, NGX_HTTP_IOTHUB_THROTTLE_POLL_MAX);
        th->polls++;

        th->wait = left / 2 + ngx_random() % left;

    } else {
        th->wait = left + 1 + ngx_random() % NGX_HTTP_IOTHUB_THROTTLE_JITTER;
    }

    return NGX_BUSY;
}


void
ngx_http_iothub_throttle_answered(ngx_http_iothub_throttle_t *th,
    ngx_http_iothub_operation_e operation, ngx_http_iothub_action_e action,
    ngx_uint_t throttled, ngx_uint_t retry_after)
{
    ngx_uint_t  i;

    th->retry_after = retry_after;

    if (ngx_http_iothub_throttle_closes(th, operation, action, throttled)) {
        return;
    }

    for (i = 0; i < NGX_HTTP_IOTHUB_GATES; i++) {

        if (th->probes[i] == 0
            || !(ngx_http_iothub_throttle_gates[i].operations & operation))
        {
            continue;
        }

        switch (action) {

        case NGX_HTTP_IOTHUB_ACTION_OTHER_KEY:
        case NGX_HTTP_IOTHUB_ACTION_ASK:

            /* not known before the next call */

            break;

        case NGX_HTTP_IOTHUB_ACTION_RETRY:
            ngx_http_iothub_throttle_end(th, i);
            break;

        default:
            ngx_http_iothub_throttle_open(th, i);
            break;
        }
    }
}


static ngx_uint_t
ngx_http_iothub_throttle_closes(ngx_http_iothub_throttle_t *th,
    ngx_http_iothub_operation_e operation, ngx_http_iothub_action_e action,
    ngx_uint_t throttled)
{
    ngx_uint_t  i, n, doublings;
    ngx_msec_t  time;

    n = sizeof(ngx_http_iothub_throttle_closings)
        / sizeof(ngx_http_iothub_throttle_closings[0]);

    for (i = 0; i < n; i++) {

        if (!(ngx_http_iothub_throttle_closings[i].operations & operation)
            || ngx_http_iothub_throttle_closings[i].action != action)
        {
            continue;
        }

        time = ngx_http_iothub_throttle_closings[i].time;
        doublings = ngx_http_iothub_throttle_closings[i].doublings;

        if (doublings) {
            time <<= ngx_min(throttled, doublings);
            time = time / 2 + ngx_random() % (time / 2);
        }

        ngx_http_iothub_throttle_close(th,
                                ngx_http_iothub_throttle_closings[i].gate,
                                th->retry_after ? th->retry_after * 1000
                                                : time,
                                ngx_http_iothub_throttle_closings[i].reason);
        return 1;
    }

    return 0;
}


void
ngx_http_iothub_throttle_refused(ngx_http_iothub_throttle_t *th)
{
    th->retry_after = NGX_HTTP_IOTHUB_THROTTLE_CREDENTIALS / 1000;

    if (ngx_http_iothub_gate_suspect(&th->hub->shm->suspect, th->hash,
                                     ngx_current_msec,
                                     ngx_http_iothub_throttle_since(th))
        == NGX_OK
        || th->probes[NGX_HTTP_IOTHUB_GATE_SEND])
    {
        ngx_http_iothub_throttle_close(th, NGX_HTTP_IOTHUB_GATE_SEND,
                                       NGX_HTTP_IOTHUB_THROTTLE_CREDENTIALS,
                                       NGX_HTTP_IOTHUB_CREDENTIALS);
    }
}


ngx_uint_t
ngx_http_iothub_throttle_doubts(ngx_http_iothub_throttle_t *th)
{
    return ngx_http_iothub_gate_trusted(&th->hub->shm->suspect,
                                        ngx_http_iothub_throttle_since(th))
           != NGX_OK;
}


static ngx_msec_t
ngx_http_iothub_throttle_since(ngx_http_iothub_throttle_t *th)
{
    ngx_msec_t  since;

    since = ngx_current_msec - NGX_HTTP_IOTHUB_GATE_SUSPECT;

    return ngx_min(th->sent, since);
}


ngx_uint_t
ngx_http_iothub_throttle_quiet(ngx_http_iothub_throttle_t *th)
{
    return ngx_http_iothub_gate_trusted(&th->hub->shm->suspect,
                                        ngx_current_msec
                                        - NGX_HTTP_IOTHUB_THROTTLE_QUIET)
           != NGX_OK;
}


void
ngx_http_iothub_throttle_accepted(ngx_http_iothub_throttle_t *th)
{
    ngx_http_iothub_gate_trust(&th->hub->shm->suspect, ngx_current_msec);
}


void
ngx_http_iothub_throttle_registry_refused(ngx_http_iothub_throttle_t *th)
{
    ngx_http_iothub_throttle_close(th, NGX_HTTP_IOTHUB_GATE_REGISTRY,
                                   NGX_HTTP_IOTHUB_THROTTLE_CREDENTIALS,
                                   NGX_HTTP_IOTHUB_CREDENTIALS);
}


void
ngx_http_iothub_throttle_registry_silent(ngx_http_iothub_throttle_t *th)
{
    ngx_http_iothub_throttle_close(th, NGX_HTTP_IOTHUB_GATE_REGISTRY,
                                   NGX_HTTP_IOTHUB_THROTTLE_SILENT,
                                   NGX_HTTP_IOTHUB_UNAVAILABLE);
}


static void
ngx_http_iothub_throttle_close(ngx_http_iothub_throttle_t *th,
    ngx_http_iothub_gate_e which, ngx_msec_t time,
    ngx_http_iothub_result_e reason)
{
    th->probes[which] = 0;
    th->retry_after = (time + 999) / 1000;

    /* a worker that is being replaced may have keys that are, too */

    if (reason == NGX_HTTP_IOTHUB_CREDENTIALS && ngx_exiting) {
        return;
    }

    if (ngx_http_iothub_gate_close(&th->hub->shm->gates[which],
                                   ngx_current_msec, ngx_current_msec + time,
                                   reason)
        != NGX_OK)
    {
        return;
    }

    ngx_log_error(NGX_LOG_WARN, th->log, 0,
                  "iothub gate closed, hub: \"%V\", gate: %s, result: %V, "
                  "for: %M.%03M s", &th->hub->name,
                  ngx_http_iothub_throttle_gates[which].name,
                  &ngx_http_iothub_results[reason].word, time / 1000,
                  time % 1000);
}


static void
ngx_http_iothub_throttle_open(ngx_http_iothub_throttle_t *th,
    ngx_http_iothub_gate_e which)
{
    uint64_t  probe;

    probe = th->probes[which];
    th->probes[which] = 0;

    if (ngx_http_iothub_gate_open(&th->hub->shm->gates[which], probe)
        == NGX_OK)
    {
        ngx_log_error(NGX_LOG_WARN, th->log, 0,
                      "iothub gate opened, hub: \"%V\", gate: %s",
                      &th->hub->name,
                      ngx_http_iothub_throttle_gates[which].name);
    }
}


void
ngx_http_iothub_throttle_keep(ngx_http_iothub_throttle_t *th)
{
    ngx_uint_t  i;

    th->probing = 0;

    for (i = 0; i < NGX_HTTP_IOTHUB_GATES; i++) {

        if (th->probes[i] == 0) {
            continue;
        }

        if (ngx_http_iothub_gate_keep(&th->hub->shm->gates[i],
                                      &th->probes[i], ngx_current_msec)
            == NGX_OK)
        {
            th->probing = 1;

        } else {
            th->probes[i] = 0;
        }
    }
}


void
ngx_http_iothub_throttle_leave(ngx_http_iothub_throttle_t *th,
    ngx_http_iothub_operation_e operation)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_IOTHUB_GATES; i++) {
        if (th->probes[i]
            && (ngx_http_iothub_throttle_gates[i].operations & operation))
        {
            ngx_http_iothub_throttle_end(th, i);
        }
    }
}


void
ngx_http_iothub_throttle_drop(ngx_http_iothub_throttle_t *th)
{
    ngx_uint_t  i;

    th->probing = 0;

    for (i = 0; i < NGX_HTTP_IOTHUB_GATES; i++) {
        if (th->probes[i]) {
            ngx_http_iothub_throttle_end(th, i);
        }
    }
}


static void
ngx_http_iothub_throttle_end(ngx_http_iothub_throttle_t *th,
    ngx_http_iothub_gate_e which)
{
    (void) ngx_http_iothub_gate_drop(&th->hub->shm->gates[which],
                                     th->probes[which], ngx_current_msec);
    th->probes[which] = 0;
}


ngx_int_t
ngx_http_iothub_throttle_gate(ngx_http_iothub_hub_t *hub,
    ngx_http_iothub_gate_e which, ngx_msec_t *left_ms,
    ngx_http_iothub_result_e *reason)
{
    uint64_t                probe;
    ngx_uint_t              state, why;
    ngx_msec_t              until;
    ngx_http_iothub_gate_t  gate;

    until = ngx_current_msec;
    why = NGX_HTTP_IOTHUB_NO_RESULT;

    /* a copy: who looks is no probe */

    gate.word = __atomic_load_n(&hub->shm->gates[which].word,
                                __ATOMIC_RELAXED);

    state = ngx_http_iothub_gate_check(&gate, ngx_current_msec, &until, &why,
                                       &probe);

    *left_ms = until - ngx_current_msec;
    *reason = why;

    return (state == NGX_HTTP_IOTHUB_GATE_CLOSED
            || state == NGX_HTTP_IOTHUB_GATE_PROBING) ? NGX_BUSY : NGX_OK;
}


const char *
ngx_http_iothub_throttle_gate_name(ngx_http_iothub_gate_e which)
{
    return ngx_http_iothub_throttle_gates[which].name;
}


ngx_msec_t
ngx_http_iothub_throttle_backlog(ngx_http_iothub_hub_t *hub)
{
    ngx_msec_t                   wait;
    ngx_http_iothub_gate_rate_t  rate;

    /* a turn of a copy */

    rate.word = __atomic_load_n(&hub->shm->rate.word, __ATOMIC_RELAXED);

    (void) ngx_http_iothub_gate_rate_book(&rate, hub->rate, hub->burst,
                                          ngx_current_msec,
                                          NGX_HTTP_IOTHUB_GATE_MAX_WAIT,
                                          &wait);
    return wait;
}
