
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_delivery.h"
#include "ngx_http_iothub_alarm.h"
#include "ngx_http_iothub_identity_lease.h"
#include "ngx_http_iothub_registry.h"
#include "ngx_http_iothub_zone.h"


/* milliseconds */

#define NGX_HTTP_IOTHUB_BACKOFF_MIN      100
#define NGX_HTTP_IOTHUB_BACKOFF_MAX      10000
#define NGX_HTTP_IOTHUB_POLL_MIN         25
#define NGX_HTTP_IOTHUB_POLL_MAX         200
#define NGX_HTTP_IOTHUB_RENEW            1000
#define NGX_HTTP_IOTHUB_FIRST_WAIT       2000
#define NGX_HTTP_IOTHUB_LOOK             200

/* what a call takes: with less than this left, no further one is started */

#define NGX_HTTP_IOTHUB_CALL_TIME        200

/* a delivery that finds its identity deleted again gives up */

#define NGX_HTTP_IOTHUB_CREATES_MAX      2

/* how often a refused delivery looks for what another's question found */

#define NGX_HTTP_IOTHUB_LOOKS_MAX        5

#define NGX_HTTP_IOTHUB_RETRY_AFTER_MAX  300
#define NGX_HTTP_IOTHUB_REQUEST_ID_MAX   64


#define ngx_http_iothub_delivery_renews(d)                                    \
    ((d)->leased || (d)->throttle.probing)

#define ngx_http_iothub_delivery_until(at)                                    \
    ((ngx_msec_int_t) ((at) - ngx_current_msec))


typedef ngx_int_t (*ngx_http_iothub_step_pt)(ngx_http_iothub_delivery_t *d);
typedef void (*ngx_http_iothub_answer_pt)(ngx_http_iothub_delivery_t *d,
    const ngx_http_iothub_verdict_t *verdict);


static void ngx_http_iothub_delivery_event(ngx_event_t *ev);
static void ngx_http_iothub_delivery_run(ngx_http_iothub_delivery_t *d);
static ngx_int_t ngx_http_iothub_delivery_hold(ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_delivery_expire(ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_delivery_renew(ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_delivery_arm(ngx_http_iothub_delivery_t *d);
static ngx_int_t ngx_http_iothub_delivery_lookup(
    ngx_http_iothub_delivery_t *d);
static ngx_int_t ngx_http_iothub_delivery_send(ngx_http_iothub_delivery_t *d);
static ngx_int_t ngx_http_iothub_delivery_lease(
    ngx_http_iothub_delivery_t *d);
static ngx_uint_t ngx_http_iothub_delivery_found(
    ngx_http_iothub_delivery_t *d);
static ngx_int_t ngx_http_iothub_delivery_create(
    ngx_http_iothub_delivery_t *d);
static ngx_int_t ngx_http_iothub_delivery_book(ngx_http_iothub_delivery_t *d,
    ngx_msec_t *wait);
static ngx_int_t ngx_http_iothub_delivery_ask(ngx_http_iothub_delivery_t *d);
static ngx_int_t ngx_http_iothub_delivery_look(ngx_http_iothub_delivery_t *d);
static ngx_int_t ngx_http_iothub_delivery_enter(ngx_http_iothub_delivery_t *d,
    ngx_http_iothub_operation_e operation, ngx_uint_t may_wait);
static ngx_int_t ngx_http_iothub_delivery_call(ngx_http_iothub_delivery_t *d,
    ngx_int_t rc);
static void ngx_http_iothub_delivery_answered(ngx_http_iothub_exchange_t *ex);
static ngx_uint_t ngx_http_iothub_delivery_answer_status(
    ngx_http_iothub_delivery_t *d, ngx_http_iothub_operation_e operation);
static void ngx_http_iothub_delivery_note(ngx_http_iothub_delivery_t *d,
    ngx_http_iothub_hub_error_t *err);
static void ngx_http_iothub_delivery_send_answer(
    ngx_http_iothub_delivery_t *d, const ngx_http_iothub_verdict_t *verdict);
static void ngx_http_iothub_delivery_create_answer(
    ngx_http_iothub_delivery_t *d, const ngx_http_iothub_verdict_t *verdict);
static void ngx_http_iothub_delivery_ask_answer(
    ngx_http_iothub_delivery_t *d, const ngx_http_iothub_verdict_t *verdict);
static void ngx_http_iothub_delivery_told(ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_delivery_disabled(ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_delivery_no_reason(
    ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_delivery_missing(ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_delivery_settle(ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_delivery_created(ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_delivery_denied(ngx_http_iothub_delivery_t *d,
    const char *detail);
static void ngx_http_iothub_delivery_not_created(
    ngx_http_iothub_delivery_t *d, ngx_http_iothub_result_e result,
    const char *detail);
static void ngx_http_iothub_delivery_refused(ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_delivery_all_refused(
    ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_delivery_credentials(
    ngx_http_iothub_delivery_t *d, const char *detail);
static ngx_uint_t ngx_http_iothub_delivery_may_ask(
    ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_delivery_asked(ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_delivery_unask(ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_delivery_not_told(ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_delivery_first_key(
    ngx_http_iothub_delivery_t *d);
static ngx_uint_t ngx_http_iothub_delivery_next_key(
    ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_delivery_retry(ngx_http_iothub_delivery_t *d,
    const ngx_http_iothub_verdict_t *verdict);
static void ngx_http_iothub_delivery_throttled(ngx_http_iothub_delivery_t *d,
    const ngx_http_iothub_verdict_t *verdict);
static void ngx_http_iothub_delivery_pause(ngx_http_iothub_delivery_t *d,
    ngx_msec_t wait);
static void ngx_http_iothub_delivery_end(ngx_http_iothub_delivery_t *d,
    ngx_http_iothub_result_e result, const char *detail);
static void ngx_http_iothub_delivery_finish(ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_delivery_count(ngx_http_iothub_delivery_t *d);
static ngx_uint_t ngx_http_iothub_delivery_status(
    ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_delivery_release(ngx_http_iothub_delivery_t *d);
static void ngx_http_iothub_delivery_cleanup(void *data);
static void ngx_http_iothub_delivery_log(ngx_http_iothub_delivery_t *d,
    ngx_uint_t level, const char *what);


/* what each step does, and what it makes of the hub's answer */

static const struct {
    const char                     *name;
    ngx_http_iothub_step_pt         run;
    ngx_http_iothub_operation_e     operation;
    ngx_http_iothub_answer_pt       answer;
} ngx_http_iothub_delivery_steps[] = {

    /* NGX_HTTP_IOTHUB_STEP_LOOKUP */
    { "lookup", ngx_http_iothub_delivery_lookup, 0, NULL },

    /* NGX_HTTP_IOTHUB_STEP_SEND */
    { "send", ngx_http_iothub_delivery_send, NGX_HTTP_IOTHUB_OPERATION_SEND,
      ngx_http_iothub_delivery_send_answer },

    /* NGX_HTTP_IOTHUB_STEP_LEASE */
    { "wait", ngx_http_iothub_delivery_lease, 0, NULL },

    /* NGX_HTTP_IOTHUB_STEP_CREATE */
    { "create", ngx_http_iothub_delivery_create,
      NGX_HTTP_IOTHUB_OPERATION_CREATE,
      ngx_http_iothub_delivery_create_answer },

    /* NGX_HTTP_IOTHUB_STEP_ASK */
    { "ask", ngx_http_iothub_delivery_ask, NGX_HTTP_IOTHUB_OPERATION_ASK,
      ngx_http_iothub_delivery_ask_answer },

    /* NGX_HTTP_IOTHUB_STEP_REFUSED */
    { "refused", ngx_http_iothub_delivery_look, 0, NULL },
};


/* how long a young identity is given to be there for sends, one by one */

static const ngx_msec_t  ngx_http_iothub_delivery_settling[] = {
    200, 500, 1000, 2000, 4000
};


void
ngx_http_iothub_delivery_prepare(ngx_http_iothub_delivery_t *d)
{
    d->hash = ngx_http_iothub_identity_hash(d->hub->shm->identity,
                                            d->device_id.data,
                                            d->device_id.len);
    d->prepared = 1;

    ngx_http_iothub_identity_prefetch(d->hub->shm->identity, d->hash);
}


void
ngx_http_iothub_delivery_start(ngx_http_iothub_delivery_t *d)
{
    ngx_connection_t    *c;
    ngx_http_cleanup_t  *cln;

    c = d->request->connection;

    d->started = ngx_current_msec;
    d->event.handler = ngx_http_iothub_delivery_event;
    d->event.data = d;
    d->event.log = c->log;
    d->exchange.hub = d->hub;
    d->exchange.device_id = d->device_id;
    d->exchange.handler = NULL;
    d->exchange.data = d;
    d->key = ngx_http_iothub_zone_key(d->hub);

    if (!d->prepared) {
        ngx_http_iothub_delivery_prepare(d);
    }

    d->throttle.hub = d->hub;
    d->throttle.hash = d->hash;
    d->throttle.log = c->log;

    cln = ngx_http_cleanup_add(d->request, 0);

    if (cln == NULL) {
        ngx_http_iothub_delivery_end(d, NGX_HTTP_IOTHUB_UNAVAILABLE,
                                     "the gateway is out of memory");
        ngx_http_iothub_delivery_finish(d);
        return;
    }

    cln->handler = ngx_http_iothub_delivery_cleanup;
    cln->data = d;

    ngx_http_iothub_delivery_run(d);
}


static void
ngx_http_iothub_delivery_event(ngx_event_t *ev)
{
    ngx_connection_t            *c;
    ngx_http_iothub_delivery_t  *d;

    d = ev->data;
    c = d->request->connection;

    ev->timedout = 0;

    ngx_http_set_log_request(c->log, d->request);

    ngx_http_iothub_delivery_run(d);

    ngx_http_run_posted_requests(c);
}


/*
 * Goes on as far as it can.  The delivery may be gone when this returns: its
 * handler may have finalized the request.
 */

static void
ngx_http_iothub_delivery_run(ngx_http_iothub_delivery_t *d)
{
    ngx_int_t  rc;

    for ( ;; ) {

        rc = ngx_http_iothub_delivery_hold(d);

        if (rc == NGX_AGAIN) {
            ngx_http_iothub_delivery_arm(d);
            return;
        }

        if (rc == NGX_DONE) {
            return;
        }

        if (d->step == NGX_HTTP_IOTHUB_STEP_END) {
            ngx_http_iothub_delivery_finish(d);
            return;
        }

        ngx_log_debug2(NGX_LOG_DEBUG_HTTP, d->request->connection->log, 0,
                       "iothub delivery: device \"%V\" step %s",
                       &d->device_id,
                       ngx_http_iothub_delivery_steps[d->step].name);

        d->request->connection->log->action = "delivering to the hub";
        d->last = d->step;

        if (ngx_http_iothub_delivery_steps[d->step].run(d) != NGX_OK) {
            ngx_http_iothub_delivery_end(d, NGX_HTTP_IOTHUB_UNAVAILABLE,
                                         "the gateway is out of memory");
        }
    }
}


/*
 * NGX_OK: the next step may be taken; NGX_AGAIN: not yet; NGX_DONE: there is
 * nothing more to do, and the delivery must not be touched any more.
 */

static ngx_int_t
ngx_http_iothub_delivery_hold(ngx_http_iothub_delivery_t *d)
{
    if (ngx_http_iothub_delivery_renews(d)
        && ngx_http_iothub_delivery_until(d->renew) <= 0)
    {
        ngx_http_iothub_delivery_renew(d);
    }

    if (d->done) {
        return d->running && ngx_http_iothub_delivery_renews(d) ? NGX_AGAIN
                                                                : NGX_DONE;
    }

    if (d->step == NGX_HTTP_IOTHUB_STEP_END && !d->running) {
        return NGX_OK;
    }

    if (ngx_http_iothub_delivery_until(d->deadline) <= 0) {
        ngx_http_iothub_delivery_expire(d);
        ngx_http_iothub_delivery_finish(d);
        return NGX_DONE;
    }

    if (d->running) {
        return NGX_AGAIN;
    }

    if (d->waiting) {

        if (ngx_http_iothub_delivery_until(d->wait) > 0) {
            return NGX_AGAIN;
        }

        d->waiting = 0;
    }

    if (d->queued) {
        ngx_queue_remove(&d->queue);
        d->queued = 0;
    }

    return NGX_OK;
}


/*
 * The deadline has passed.  A call that has a connection goes on, and nobody
 * knows what comes of it; one that has none is made no more, or the sender's
 * repeat would be a second message.
 */

static void
ngx_http_iothub_delivery_expire(ngx_http_iothub_delivery_t *d)
{
    ngx_http_iothub_hub_error_t  none;

    if (d->running
        && ngx_http_iothub_exchange_give_up(&d->exchange) == NGX_OK)
    {
        d->running = 0;
        d->request->connection->log->action = "delivering to the hub";

        ngx_memzero(&none, sizeof(ngx_http_iothub_hub_error_t));

        ngx_http_iothub_delivery_note(d, &none);
        ngx_http_iothub_metrics_call(d->hub->counts,
                         ngx_http_iothub_delivery_steps[d->last].operation,
                         0, ngx_current_msec - d->called);

        /* unless a call before it had no answer */

        if (d->result != NGX_HTTP_IOTHUB_TIMEOUT) {
            d->result = NGX_HTTP_IOTHUB_UNAVAILABLE;
            d->detail = "there was no connection to the hub before the "
                        "deadline";
        }

        return;
    }

    if (d->running) {
        d->result = NGX_HTTP_IOTHUB_TIMEOUT;
        d->detail = "the hub did not answer before the deadline";

    } else if (d->result == NGX_HTTP_IOTHUB_NO_RESULT) {
        d->result = NGX_HTTP_IOTHUB_UNAVAILABLE;
        d->detail = "the deadline passed before the message could be sent";
    }
}


/* what others would take over if this worker were dead */

static void
ngx_http_iothub_delivery_renew(ngx_http_iothub_delivery_t *d)
{
    d->renew = ngx_current_msec + NGX_HTTP_IOTHUB_RENEW;

    if (d->leased
        && ngx_http_iothub_identity_lease_renew(d->hub->shm->identity,
                                                d->hash, &d->lease,
                                                ngx_current_msec)
           != NGX_OK)
    {
        d->leased = 0;
    }

    ngx_http_iothub_throttle_keep(&d->throttle);
}


static void
ngx_http_iothub_delivery_arm(ngx_http_iothub_delivery_t *d)
{
    ngx_msec_int_t  timer, next;

    timer = d->done ? NGX_HTTP_IOTHUB_RENEW
                    : ngx_http_iothub_delivery_until(d->deadline);

    if (d->waiting) {
        next = ngx_http_iothub_delivery_until(d->wait);
        timer = ngx_min(timer, next);
    }

    if (ngx_http_iothub_delivery_renews(d)) {
        next = ngx_http_iothub_delivery_until(d->renew);
        timer = ngx_min(timer, next);
    }

    /* an old timer is kept by nginx if the new one is close to it */

    if (d->event.timer_set) {
        ngx_del_timer(&d->event);
    }

    ngx_add_timer(&d->event, (ngx_msec_t) ngx_max(timer, 1));
}


static ngx_int_t
ngx_http_iothub_delivery_lookup(ngx_http_iothub_delivery_t *d)
{
    ngx_uint_t  state;

    state = ngx_http_iothub_identity_lookup(d->hub->shm->identity, d->hash,
                                            ngx_time(), NULL);

    d->step = NGX_HTTP_IOTHUB_STEP_SEND;

    switch (state) {

    case NGX_HTTP_IOTHUB_IDENTITY_BLOCKED:
        d->identity = "BLOCKED";
        ngx_http_iothub_delivery_end(d, NGX_HTTP_IOTHUB_BLOCKED,
                                     "the device is disabled in the hub");
        break;

    case NGX_HTTP_IOTHUB_IDENTITY_UNKNOWN:
        d->identity = "MISS";

        if (d->hub->registering == NGX_HTTP_IOTHUB_REGISTER_FIRST
            && d->may_create)
        {
            d->step = NGX_HTTP_IOTHUB_STEP_LEASE;
        }

        break;

    default: /* known, settling, or to be checked by a send */

        if (d->identity == NULL) {
            d->identity = "HIT";
        }

        break;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_delivery_send(ngx_http_iothub_delivery_t *d)
{
    switch (ngx_http_iothub_delivery_enter(d, NGX_HTTP_IOTHUB_OPERATION_SEND,
                                           1))
    {
    case NGX_AGAIN:
        return NGX_OK;

    case NGX_DECLINED:
        ngx_http_iothub_delivery_end(d, d->throttle.result,
                                     d->throttle.detail);
        return NGX_OK;
    }

    d->sent = ngx_time();
    d->tries++;

    return ngx_http_iothub_delivery_call(d,
               ngx_http_iothub_message_send(d->request->pool, &d->exchange,
                                            &d->message));
}


/*
 * Only the owner of the lease creates, and only after it has looked again.
 * Others wait: they are woken by an owner in the same worker, and poll for
 * one in another.
 */

static ngx_int_t
ngx_http_iothub_delivery_lease(ngx_http_iothub_delivery_t *d)
{
    ngx_int_t   rc;
    ngx_msec_t  wait;

    if (ngx_http_iothub_delivery_found(d)) {
        return NGX_OK;
    }

    rc = ngx_http_iothub_identity_lease_take(d->hub->shm->identity, d->hash,
                                             ngx_current_msec, &d->lease);

    if (rc != NGX_OK) {

        if (rc == NGX_BUSY) {
            d->waited = 1;
        }

        if (!d->missing
            && ngx_current_msec - d->started > NGX_HTTP_IOTHUB_FIRST_WAIT)
        {
            /* in register first, a slow registry holds nobody back */

            d->step = NGX_HTTP_IOTHUB_STEP_SEND;
            return NGX_OK;
        }

        if (d->missing && d->result == NGX_HTTP_IOTHUB_NO_RESULT) {
            d->result = NGX_HTTP_IOTHUB_CREATION_LIMITED;
            d->detail = "the identity is missing, and its creation has not "
                        "ended before the deadline";
        }

        wait = NGX_HTTP_IOTHUB_POLL_MIN << ngx_min(d->polls, 3);
        wait = ngx_min(wait, NGX_HTTP_IOTHUB_POLL_MAX);
        d->polls++;

        if (d->waited) {
            d->identity = "WAITED";
        }

        ngx_queue_insert_tail(&d->hub->waiting, &d->queue);
        d->queued = 1;
        d->waiting = 1;
        d->wait = ngx_current_msec + wait / 2 + ngx_random() % wait;

        return NGX_OK;
    }

    d->leased = 1;
    d->renew = ngx_current_msec + NGX_HTTP_IOTHUB_RENEW;

    if (ngx_http_iothub_delivery_found(d)) {
        ngx_http_iothub_delivery_release(d);
        return NGX_OK;
    }

    /* whom this waited for did not create it: nor will the registry now */

    if (!d->missing && d->waited) {
        ngx_http_iothub_delivery_release(d);

        d->step = NGX_HTTP_IOTHUB_STEP_SEND;
        return NGX_OK;
    }

    d->step = NGX_HTTP_IOTHUB_STEP_CREATE;

    return NGX_OK;
}


/* has another found, created or blocked it meanwhile? */

static ngx_uint_t
ngx_http_iothub_delivery_found(ngx_http_iothub_delivery_t *d)
{
    ngx_uint_t  state;

    state = ngx_http_iothub_identity_lookup(d->hub->shm->identity, d->hash,
                                            ngx_time(), NULL);

    if (state == NGX_HTTP_IOTHUB_IDENTITY_UNKNOWN
        || state == NGX_HTTP_IOTHUB_IDENTITY_RECHECK)
    {
        return 0;
    }

    d->step = NGX_HTTP_IOTHUB_STEP_LOOKUP;

    return 1;
}


/*
 * In register first, the identity may well exist: then neither a gate nor a
 * turn is waited for.
 */

static ngx_int_t
ngx_http_iothub_delivery_create(ngx_http_iothub_delivery_t *d)
{
    ngx_msec_t  wait;

    if (!d->leased) {

        /* it ran out while this waited, in a worker that stood still */

        d->step = NGX_HTTP_IOTHUB_STEP_LEASE;
        return NGX_OK;
    }

    switch (ngx_http_iothub_delivery_enter(d,
                                           NGX_HTTP_IOTHUB_OPERATION_CREATE,
                                           d->missing))
    {
    case NGX_AGAIN:
        return NGX_OK;

    case NGX_DECLINED:
        ngx_http_iothub_delivery_not_created(d, d->throttle.result,
                                             d->throttle.detail);
        return NGX_OK;
    }

    if (!d->booked) {

        if (ngx_http_iothub_delivery_book(d, &wait) != NGX_OK) {
            ngx_http_iothub_delivery_not_created(d,
                NGX_HTTP_IOTHUB_CREATION_LIMITED,
                "the identity is missing, and the rate of creations is "
                "spent");
            return NGX_OK;
        }

        if (wait) {
            d->waiting = 1;
            d->wait = d->turn;
            return NGX_OK;
        }
    }

    d->booked = 0;

    return ngx_http_iothub_delivery_call(d,
               ngx_http_iothub_registry_create(d->request->pool,
                                               &d->exchange, !d->missing));
}


/* a turn that leaves time to create and to send */

static ngx_int_t
ngx_http_iothub_delivery_book(ngx_http_iothub_delivery_t *d,
    ngx_msec_t *wait)
{
    ngx_msec_int_t  most;

    most = 0;

    if (d->missing) {
        most = ngx_http_iothub_delivery_until(d->deadline)
               - 2 * NGX_HTTP_IOTHUB_CALL_TIME;
        most = ngx_max(most, 0);
    }

    if (ngx_http_iothub_gate_rate_book(&d->hub->shm->rate, d->hub->rate,
                                       d->hub->burst, ngx_current_msec, most,
                                       wait)
        != NGX_OK)
    {
        d->retry_after = *wait / 1000 + 1;
        return NGX_DECLINED;
    }

    d->booked = 1;
    d->turn = ngx_current_msec + *wait;

    if (*wait && d->result == NGX_HTTP_IOTHUB_NO_RESULT) {
        d->result = NGX_HTTP_IOTHUB_CREATION_LIMITED;
        d->detail = "the identity is missing, and its turn to be created "
                    "did not come before the deadline";
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_delivery_ask(ngx_http_iothub_delivery_t *d)
{
    d->asked = 1;

    return ngx_http_iothub_delivery_call(d,
               ngx_http_iothub_registry_ask(d->request->pool, &d->exchange));
}


/* has another's question been answered meanwhile? */

static ngx_int_t
ngx_http_iothub_delivery_look(ngx_http_iothub_delivery_t *d)
{
    ngx_http_iothub_delivery_refused(d);

    return NGX_OK;
}


/*
 * NGX_OK: the gates let the call go; NGX_AGAIN: to be asked again, later;
 * NGX_DECLINED: they do not, and throttle says why.
 */

static ngx_int_t
ngx_http_iothub_delivery_enter(ngx_http_iothub_delivery_t *d,
    ngx_http_iothub_operation_e operation, ngx_uint_t may_wait)
{
    ngx_http_iothub_throttle_t  *th;

    th = &d->throttle;

    if (ngx_http_iothub_throttle_enter(th, operation) == NGX_OK) {

        if (th->probing && !d->leased) {
            d->renew = ngx_current_msec + NGX_HTTP_IOTHUB_RENEW;
        }

        return NGX_OK;
    }

    d->retry_after = th->retry_after;

    if (!may_wait
        || th->wait == 0
        || (ngx_msec_int_t) (th->wait + NGX_HTTP_IOTHUB_CALL_TIME)
           >= ngx_http_iothub_delivery_until(d->deadline))
    {
        return NGX_DECLINED;
    }

    d->result = th->result;
    d->detail = th->detail;
    d->waiting = 1;
    d->wait = ngx_current_msec + th->wait;

    return NGX_AGAIN;
}


static ngx_int_t
ngx_http_iothub_delivery_call(ngx_http_iothub_delivery_t *d, ngx_int_t rc)
{
    if (rc != NGX_OK) {
        return rc;
    }

    d->exchange.key = d->key;
    d->exchange.handler = ngx_http_iothub_delivery_answered;
    d->called = ngx_current_msec;

    if (ngx_http_iothub_exchange_start(d->request, &d->exchange) != NGX_OK) {
        d->exchange.handler = NULL;
        return NGX_ERROR;
    }

    d->running = 1;

    return NGX_OK;
}


/*
 * Teaches the cache where the answer arrives, because the request may be
 * gone before the next step.
 */

static void
ngx_http_iothub_delivery_answered(ngx_http_iothub_exchange_t *ex)
{
    ngx_http_iothub_delivery_t *d = ex->data;

    ngx_uint_t                        status;
    const char                       *detail;
    ngx_http_iothub_result_e          result;
    ngx_http_iothub_hub_error_t       err;
    ngx_http_iothub_operation_e       operation;
    const ngx_http_iothub_verdict_t  *verdict;

    ngx_http_iothub_identity_prefetch(d->hub->shm->identity, d->hash);

    d->running = 0;
    operation = ngx_http_iothub_delivery_steps[d->last].operation;

    /* nginx has been "sending to client" meanwhile, which is not so */

    d->request->connection->log->action = "delivering to the hub";

    status = ngx_http_iothub_delivery_answer_status(d, operation);

    ngx_http_iothub_hub_error_parse(status, &ex->error, &ex->answer, &err);

    verdict = ngx_http_iothub_hub_error_classify(operation, status, &err);

    ngx_http_iothub_delivery_note(d, &err);
    ngx_http_iothub_metrics_call(d->hub->counts, operation, status,
                                 ngx_current_msec - d->called);
    ngx_http_iothub_metrics_repeated(d->hub->counts, operation, ex->repeats);

    if (status == NGX_HTTP_UNAUTHORIZED) {
        ngx_http_iothub_alarm_clock(d->hub, &ex->date, ngx_time(),
                                    d->request->connection->log);
    }

    ngx_http_iothub_throttle_answered(&d->throttle, operation,
                                      verdict->action, d->throttled,
                                      d->retry_after);

    d->throttled = (verdict->action == NGX_HTTP_IOTHUB_ACTION_THROTTLED)
                   ? d->throttled + 1 : 0;

    d->retry_after = d->throttle.retry_after;

    result = d->result;
    detail = d->detail;

    ngx_http_iothub_delivery_steps[d->last].answer(d, verdict);

    if (!d->done) {
        ngx_post_event(&d->event, &ngx_posted_events);
        return;
    }

    /* the outcome stays what was told */

    d->result = result;
    d->detail = detail;

    ngx_http_iothub_delivery_unask(d);
    ngx_http_iothub_delivery_release(d);
    ngx_http_iothub_throttle_drop(&d->throttle);

    ngx_http_iothub_delivery_log(d, NGX_LOG_ERR, "iothub call ended after the "
                                 "deadline");
}


/*
 * An answer without its end is none; but where the end was not waited for,
 * the status says enough, unless it is the body that was asked for.
 */

static ngx_uint_t
ngx_http_iothub_delivery_answer_status(ngx_http_iothub_delivery_t *d,
    ngx_http_iothub_operation_e operation)
{
    ngx_http_iothub_exchange_t  *ex;

    ex = &d->exchange;

    return (ex->complete
            || (ex->cut && operation != NGX_HTTP_IOTHUB_OPERATION_ASK))
           ? ex->status : 0;
}


static void
ngx_http_iothub_delivery_note(ngx_http_iothub_delivery_t *d,
    ngx_http_iothub_hub_error_t *err)
{
    u_char      *p;
    ngx_str_t   *id;
    ngx_uint_t   i;

    if (d->calls < NGX_HTTP_IOTHUB_DELIVERY_STATUSES) {
        d->statuses[d->calls] = (uint16_t) d->exchange.status;
    }

    d->calls++;

    d->retry_after = ngx_http_iothub_hub_error_retry_after(
                         &d->exchange.retry_after, ngx_time());
    d->retry_after = ngx_min(d->retry_after, NGX_HTTP_IOTHUB_RETRY_AFTER_MAX);

    ngx_str_null(&d->hub_error);

    if (err->name.len) {
        p = ngx_pnalloc(d->request->pool, err->name.len);

        if (p) {
            d->hub_error.data = p;
            d->hub_error.len = err->name.len;
            ngx_memcpy(p, err->name.data, err->name.len);
        }
    }

    /* it goes into the log: only what looks like an id */

    ngx_str_null(&d->hub_request_id);
    id = &d->exchange.request_id;

    if (id->len > NGX_HTTP_IOTHUB_REQUEST_ID_MAX) {
        return;
    }

    for (i = 0; i < id->len; i++) {
        if (id->data[i] <= ' ' || id->data[i] > '~' || id->data[i] == '"') {
            return;
        }
    }

    d->hub_request_id = *id;
}


static void
ngx_http_iothub_delivery_send_answer(ngx_http_iothub_delivery_t *d,
    const ngx_http_iothub_verdict_t *verdict)
{
    if (d->denied
        && (verdict->action == NGX_HTTP_IOTHUB_ACTION_DONE
            || verdict->action == NGX_HTTP_IOTHUB_ACTION_CREATE))
    {
        /* the keys are good, then */

        d->denied = 0;
        ngx_http_iothub_alarm(d->hub, NGX_HTTP_IOTHUB_ALARM_WRITE,
                              d->request->connection->log);
    }

    switch (verdict->action) {

    case NGX_HTTP_IOTHUB_ACTION_DONE:

        ngx_http_iothub_identity_set(d->hub->shm->identity, d->hash,
                                     NGX_HTTP_IOTHUB_IDENTITY_KNOWN,
                                     ngx_time());
        ngx_http_iothub_zone_key_works(d->hub, d->key);
        ngx_http_iothub_throttle_accepted(&d->throttle);
        ngx_http_iothub_metrics_add(&d->hub->counts->blocks,
                                    d->message.blocks);
        ngx_http_iothub_delivery_end(d, NGX_HTTP_IOTHUB_DELIVERED, NULL);
        break;

    case NGX_HTTP_IOTHUB_ACTION_CREATE:
        ngx_http_iothub_delivery_missing(d);
        break;

    case NGX_HTTP_IOTHUB_ACTION_OTHER_KEY:

        if (!ngx_http_iothub_delivery_next_key(d)) {
            ngx_http_iothub_delivery_refused(d);
        }

        break;

    case NGX_HTTP_IOTHUB_ACTION_ASK:
        ngx_http_iothub_delivery_refused(d);
        break;

    case NGX_HTTP_IOTHUB_ACTION_DISABLED:
        ngx_http_iothub_delivery_disabled(d);
        break;

    case NGX_HTTP_IOTHUB_ACTION_THROTTLED:
        ngx_http_iothub_delivery_throttled(d, verdict);
        break;

    case NGX_HTTP_IOTHUB_ACTION_RETRY:
        ngx_http_iothub_delivery_retry(d, verdict);
        break;

    default: /* quota, permanent */
        ngx_http_iothub_delivery_end(d, verdict->result, verdict->detail);
        break;
    }
}


/* the hub says that it does not have the identity */

static void
ngx_http_iothub_delivery_missing(ngx_http_iothub_delivery_t *d)
{
    ngx_uint_t                       state;
    ngx_http_iothub_identity_shm_t  *identity;

    identity = d->hub->shm->identity;
    d->missing = 1;

    /* what was disabled may answer so: never create it without asking */

    state = ngx_http_iothub_identity_lookup(identity, d->hash, ngx_time(),
                                            NULL);

    if (state == NGX_HTTP_IOTHUB_IDENTITY_RECHECK
        || (d->exists && !d->asked))
    {
        ngx_http_iothub_delivery_refused(d);
        return;
    }

    if (state == NGX_HTTP_IOTHUB_IDENTITY_SETTLING
        || (state == NGX_HTTP_IOTHUB_IDENTITY_UNKNOWN && d->exists))
    {
        ngx_http_iothub_delivery_settle(d);
        return;
    }

    if (state == NGX_HTTP_IOTHUB_IDENTITY_KNOWN
        && ngx_http_iothub_identity_forget_if(identity, d->hash, state,
                                              d->sent)
           != NGX_OK)
    {
        /* it was found or created since this message was sent */

        ngx_http_iothub_delivery_settle(d);
        return;
    }

    if (d->hub->registering == NGX_HTTP_IOTHUB_REGISTER_OFF) {
        ngx_http_iothub_delivery_end(d, NGX_HTTP_IOTHUB_BLOCKED,
                                     "the device is not in the hub, and "
                                     "\"register off\" creates none");
        return;
    }

    if (!d->may_create) {
        ngx_http_iothub_delivery_end(d, NGX_HTTP_IOTHUB_BLOCKED,
                                     "the device is not in the hub, and "
                                     "iothub_create forbids to create it");
        return;
    }

    if (d->creates >= NGX_HTTP_IOTHUB_CREATES_MAX) {
        ngx_http_iothub_delivery_end(d, NGX_HTTP_IOTHUB_UNAVAILABLE,
                                     "the identity was created, and the hub "
                                     "does not have it");
        return;
    }

    d->step = NGX_HTTP_IOTHUB_STEP_LEASE;
}


/* a young identity, which the hub's message endpoint does not know yet */

static void
ngx_http_iothub_delivery_settle(ngx_http_iothub_delivery_t *d)
{
    ngx_uint_t  n;

    n = sizeof(ngx_http_iothub_delivery_settling) / sizeof(ngx_msec_t);

    if (d->creates == 0 && !d->exists) {
        d->identity = "WAITED";
    }

    d->step = NGX_HTTP_IOTHUB_STEP_SEND;
    d->result = NGX_HTTP_IOTHUB_UNAVAILABLE;
    d->detail = "the identity was created, and the hub does not take "
                "messages for it yet";

    if (d->not_told) {
        d->result = NGX_HTTP_IOTHUB_CREDENTIALS;
        d->detail = "the hub takes no messages of the device, and the "
                    "policy lacks registry read to find out why";
    }

    if (d->settled < n) {
        ngx_http_iothub_delivery_pause(d,
                           ngx_http_iothub_delivery_settling[d->settled++]);
        return;
    }

    if (d->asked) {
        ngx_http_iothub_delivery_end(d, d->result, d->detail);
        return;
    }

    ngx_http_iothub_delivery_refused(d);
}


static void
ngx_http_iothub_delivery_create_answer(ngx_http_iothub_delivery_t *d,
    const ngx_http_iothub_verdict_t *verdict)
{
    switch (verdict->action) {

    case NGX_HTTP_IOTHUB_ACTION_DONE:
        ngx_http_iothub_zone_key_works(d->hub, d->key);
        ngx_http_iothub_delivery_created(d);
        break;

    case NGX_HTTP_IOTHUB_ACTION_OTHER_KEY:

        if (!ngx_http_iothub_delivery_next_key(d)) {
            ngx_http_iothub_delivery_denied(d, verdict->detail);
        }

        break;

    case NGX_HTTP_IOTHUB_ACTION_RETRY:

        if (d->missing) {
            ngx_http_iothub_delivery_retry(d, verdict);
            break;
        }

        if (!d->exchange.complete && !d->exchange.cut) {
            ngx_http_iothub_throttle_registry_silent(&d->throttle);
        }

        ngx_http_iothub_delivery_not_created(d, verdict->result,
                                             verdict->detail);
        break;

    case NGX_HTTP_IOTHUB_ACTION_THROTTLED:

        if (d->missing) {
            ngx_http_iothub_delivery_throttled(d, verdict);
            break;
        }

        ngx_http_iothub_delivery_not_created(d, verdict->result,
                                             verdict->detail);
        break;

    default: /* quota, permanent */

        if (verdict->result == NGX_HTTP_IOTHUB_CREDENTIALS) {
            ngx_http_iothub_delivery_denied(d, verdict->detail);
            break;
        }

        ngx_http_iothub_delivery_not_created(d, verdict->result,
                                             verdict->detail);
        break;
    }
}


static void
ngx_http_iothub_delivery_created(ngx_http_iothub_delivery_t *d)
{
    ngx_http_iothub_identity_shm_t  *identity;

    identity = d->hub->shm->identity;
    d->step = NGX_HTTP_IOTHUB_STEP_SEND;

    if (d->exchange.status < 300) {

        d->creates++;
        d->identity = "CREATED";
        ngx_http_iothub_metrics_add(&d->hub->counts->created, 1);

        ngx_http_iothub_identity_set(identity, d->hash,
                                     NGX_HTTP_IOTHUB_IDENTITY_SETTLING,
                                     ngx_time());

        ngx_log_error(NGX_LOG_INFO, d->request->connection->log, 0,
                      "iothub identity created, hub: \"%V\", device: \"%V\"",
                      &d->hub->name, &d->device_id);

        ngx_http_iothub_delivery_release(d);
        return;
    }

    /* it exists: why did the hub take no message, then? */

    d->identity = "EXISTS";
    d->exists = 1;

    if (d->missing && ngx_http_iothub_delivery_may_ask(d)) {
        return;
    }

    ngx_http_iothub_identity_set(identity, d->hash,
                                 NGX_HTTP_IOTHUB_IDENTITY_SETTLING,
                                 ngx_time());

    ngx_http_iothub_delivery_release(d);
}


/* the registry refuses to create, by every key */

static void
ngx_http_iothub_delivery_denied(ngx_http_iothub_delivery_t *d,
    const char *detail)
{
    ngx_http_iothub_throttle_registry_refused(&d->throttle);
    d->retry_after = d->throttle.retry_after;

    if (d->missing) {

        /* the hub has taken the key for the message */

        ngx_http_iothub_alarm(d->hub, NGX_HTTP_IOTHUB_ALARM_WRITE,
                              d->request->connection->log);

    } else {
        d->denied = 1;
        ngx_http_iothub_delivery_first_key(d);
    }

    ngx_http_iothub_delivery_not_created(d, NGX_HTTP_IOTHUB_CREDENTIALS,
                                         detail);
}


/*
 * In register first, a registry that is limited, down or closed to us does
 * not hold back a device that may well exist.
 */

static void
ngx_http_iothub_delivery_not_created(ngx_http_iothub_delivery_t *d,
    ngx_http_iothub_result_e result, const char *detail)
{
    ngx_http_iothub_delivery_release(d);

    if (!d->missing) {
        d->result = NGX_HTTP_IOTHUB_NO_RESULT;
        d->step = NGX_HTTP_IOTHUB_STEP_SEND;
        return;
    }

    ngx_http_iothub_delivery_end(d, result, detail);
}


/*
 * Sending is refused, by every key or for this device alone.  One question
 * in ten minutes tells which.
 */

static void
ngx_http_iothub_delivery_refused(ngx_http_iothub_delivery_t *d)
{
    if (!d->missing) {
        d->refused = 1;
    }

    if (d->looks
        && ngx_http_iothub_throttle_suspected(&d->throttle) == NGX_OK)
    {
        /* another has asked, and is none the wiser */

        d->retry_after = d->throttle.retry_after;
        ngx_http_iothub_delivery_end(d, d->throttle.result,
                                     d->throttle.detail);
        return;
    }

    if (ngx_http_iothub_delivery_may_ask(d)) {
        return;
    }

    if (ngx_http_iothub_identity_lookup(d->hub->shm->identity, d->hash,
                                        ngx_time(), NULL)
        == NGX_HTTP_IOTHUB_IDENTITY_BLOCKED)
    {
        /* another has asked while this message was under way */

        d->step = NGX_HTTP_IOTHUB_STEP_LOOKUP;
        return;
    }

    if (!d->asked && d->looks < NGX_HTTP_IOTHUB_LOOKS_MAX) {

        /* another may have put the question just now */

        d->looks++;
        d->step = NGX_HTTP_IOTHUB_STEP_REFUSED;
        d->result = d->refused ? NGX_HTTP_IOTHUB_CREDENTIALS
                               : NGX_HTTP_IOTHUB_UNAVAILABLE;
        d->detail = "the hub takes no messages of this device, and was "
                    "asked why already";

        ngx_http_iothub_delivery_pause(d, NGX_HTTP_IOTHUB_LOOK);
        return;
    }

    if (d->refused) {
        ngx_http_iothub_delivery_all_refused(d);
        return;
    }

    ngx_http_iothub_delivery_end(d, NGX_HTTP_IOTHUB_UNAVAILABLE,
                                 "the hub has the identity, and does not "
                                 "take messages for it yet");
}


/* by 401 or 403, and nobody can be asked why: is it this device, or all? */

static void
ngx_http_iothub_delivery_all_refused(ngx_http_iothub_delivery_t *d)
{
    if (!d->asked
        && !d->registry_refuses
        && d->throttle.probes[NGX_HTTP_IOTHUB_GATE_SEND] == 0
        && !ngx_http_iothub_throttle_quiet(&d->throttle))
    {
        /* nobody knows: it says nothing of other devices */

        ngx_http_iothub_delivery_end(d, NGX_HTTP_IOTHUB_CREDENTIALS,
                                     "the hub refuses messages of this "
                                     "device, and could not be asked why");
        return;
    }

    if (ngx_http_iothub_throttle_doubts(&d->throttle)) {
        ngx_http_iothub_alarm_messages(d->hub, d->request->connection->log);
    }

    ngx_http_iothub_delivery_credentials(d,
                                         "the hub refuses every key, or the "
                                         "policy lacks device connect");
}


/* messages are refused, and the device is not known to be the reason */

static void
ngx_http_iothub_delivery_credentials(ngx_http_iothub_delivery_t *d,
    const char *detail)
{
    ngx_http_iothub_throttle_refused(&d->throttle);
    d->retry_after = d->throttle.retry_after;

    ngx_http_iothub_delivery_end(d, NGX_HTTP_IOTHUB_CREDENTIALS, detail);
}


/* makes the question the next step, if it may be put */

static ngx_uint_t
ngx_http_iothub_delivery_may_ask(ngx_http_iothub_delivery_t *d)
{
    if (d->asked) {
        return 0;
    }

    if (ngx_http_iothub_delivery_enter(d, NGX_HTTP_IOTHUB_OPERATION_ASK, 0)
        != NGX_OK)
    {
        d->registry_refuses = (d->throttle.result
                               == NGX_HTTP_IOTHUB_CREDENTIALS);
        return 0;
    }

    if (ngx_http_iothub_identity_ask(d->hub->shm->identity, d->hash,
                                     ngx_time())
        != NGX_OK)
    {
        ngx_http_iothub_throttle_leave(&d->throttle,
                                       NGX_HTTP_IOTHUB_OPERATION_ASK);
        return 0;
    }

    ngx_http_iothub_delivery_first_key(d);

    d->asking = 1;
    d->step = NGX_HTTP_IOTHUB_STEP_ASK;

    return 1;
}


/* the question was answered */

static void
ngx_http_iothub_delivery_asked(ngx_http_iothub_delivery_t *d)
{
    d->asking = 0;
    ngx_http_iothub_identity_asked(d->hub->shm->identity, d->hash,
                                   ngx_time());
}


/* the question was not put, or not answered: the next delivery may ask */

static void
ngx_http_iothub_delivery_unask(ngx_http_iothub_delivery_t *d)
{
    if (d->asking) {
        d->asking = 0;
        ngx_http_iothub_identity_unask(d->hub->shm->identity, d->hash);
    }
}


static void
ngx_http_iothub_delivery_ask_answer(ngx_http_iothub_delivery_t *d,
    const ngx_http_iothub_verdict_t *verdict)
{
    switch (verdict->action) {

    case NGX_HTTP_IOTHUB_ACTION_DONE:
        ngx_http_iothub_delivery_told(d);
        break;

    case NGX_HTTP_IOTHUB_ACTION_DISABLED:
        ngx_http_iothub_delivery_asked(d);
        ngx_http_iothub_delivery_disabled(d);
        break;

    case NGX_HTTP_IOTHUB_ACTION_CREATE:

        ngx_http_iothub_delivery_asked(d);

        ngx_http_iothub_identity_forget(d->hub->shm->identity, d->hash);
        ngx_http_iothub_delivery_release(d);
        d->exists = 0;
        ngx_http_iothub_delivery_missing(d);
        break;

    case NGX_HTTP_IOTHUB_ACTION_OTHER_KEY:

        if (ngx_http_iothub_delivery_next_key(d)) {
            return;
        }

        ngx_http_iothub_delivery_not_told(d);
        break;

    default:

        if (verdict->result == NGX_HTTP_IOTHUB_CREDENTIALS) {
            ngx_http_iothub_delivery_not_told(d);
            break;
        }

        ngx_http_iothub_delivery_no_reason(d);
        break;
    }

    /* the lease of a creation that was answered by 409 */

    ngx_http_iothub_delivery_release(d);
}


/* the registry has the identity: its status tells why no message is taken */

static void
ngx_http_iothub_delivery_told(ngx_http_iothub_delivery_t *d)
{
    switch (ngx_http_iothub_hub_error_device_status(&d->exchange.answer)) {

    case NGX_HTTP_IOTHUB_DEVICE_DISABLED:
        ngx_http_iothub_delivery_asked(d);
        ngx_http_iothub_delivery_disabled(d);
        return;

    case NGX_HTTP_IOTHUB_DEVICE_ENABLED:
        ngx_http_iothub_delivery_asked(d);
        break;

    default: /* NGX_HTTP_IOTHUB_DEVICE_UNKNOWN */
        ngx_http_iothub_delivery_no_reason(d);
        return;
    }

    if (d->refused) {

        if (ngx_http_iothub_throttle_doubts(&d->throttle)) {
            ngx_http_iothub_alarm(d->hub, NGX_HTTP_IOTHUB_ALARM_CONNECT,
                                  d->request->connection->log);
        }

        ngx_http_iothub_delivery_credentials(d, "the device is enabled, and "
                                             "the hub refuses its messages: "
                                             "the policy lacks device "
                                             "connect");
        return;
    }

    ngx_http_iothub_identity_set(d->hub->shm->identity, d->hash,
                                 NGX_HTTP_IOTHUB_IDENTITY_SETTLING,
                                 ngx_time());
    ngx_http_iothub_delivery_settle(d);
}


static void
ngx_http_iothub_delivery_disabled(ngx_http_iothub_delivery_t *d)
{
    ngx_http_iothub_identity_set(d->hub->shm->identity, d->hash,
                                 NGX_HTTP_IOTHUB_IDENTITY_BLOCKED,
                                 ngx_time());
    d->identity = "BLOCKED";

    ngx_http_iothub_delivery_end(d, NGX_HTTP_IOTHUB_BLOCKED,
                                 "the device is disabled in the hub");
}


/* the next one asks again */

static void
ngx_http_iothub_delivery_no_reason(ngx_http_iothub_delivery_t *d)
{
    ngx_http_iothub_delivery_unask(d);

    if (d->exists && !d->refused && d->settled == 0) {

        /* a young identity, most likely, that another has just created */

        ngx_http_iothub_delivery_settle(d);
        return;
    }

    if (d->refused) {
        ngx_http_iothub_delivery_end(d, NGX_HTTP_IOTHUB_CREDENTIALS,
                                     "the hub refuses messages of this "
                                     "device, and does not say why");
        return;
    }

    ngx_http_iothub_delivery_end(d, NGX_HTTP_IOTHUB_UNAVAILABLE,
                                 "the hub takes no messages of this device, "
                                 "and does not say why");
}


/*
 * The registry refused the question.  If it alone is closed to us, the
 * question is not put again for each webhook of the device.
 */

static void
ngx_http_iothub_delivery_not_told(ngx_http_iothub_delivery_t *d)
{
    if (d->refused && ngx_http_iothub_throttle_doubts(&d->throttle)) {

        /* no key is good for anything: the next probe asks again */

        ngx_http_iothub_delivery_credentials(d, "the hub refuses every key");
        ngx_http_iothub_delivery_unask(d);
        ngx_http_iothub_alarm(d->hub, NGX_HTTP_IOTHUB_ALARM_KEYS,
                              d->request->connection->log);
        return;
    }

    ngx_http_iothub_delivery_asked(d);

    ngx_http_iothub_alarm(d->hub, NGX_HTTP_IOTHUB_ALARM_READ,
                          d->request->connection->log);

    if (d->refused) {
        ngx_http_iothub_delivery_credentials(d, "the hub refuses messages of "
                                             "this device, and the policy "
                                             "lacks registry read to find "
                                             "out why");
        return;
    }

    ngx_http_iothub_delivery_first_key(d);

    /* it may be young, and is given the time that takes */

    d->not_told = 1;

    ngx_http_iothub_identity_set(d->hub->shm->identity, d->hash,
                                 NGX_HTTP_IOTHUB_IDENTITY_SETTLING,
                                 ngx_time());
    ngx_http_iothub_delivery_settle(d);
}


/*
 * Another kind of call: again with the key that is known to work, as the last
 * one tried may be stale and refused for that, or the first for want of a
 * right that this kind does not need.
 */

static void
ngx_http_iothub_delivery_first_key(ngx_http_iothub_delivery_t *d)
{
    d->key = ngx_http_iothub_zone_key(d->hub);
    d->other_key = 0;
}


/* the other key is tried once in a delivery, for each kind of call */

static ngx_uint_t
ngx_http_iothub_delivery_next_key(ngx_http_iothub_delivery_t *d)
{
    if (d->hub->nkeys < 2 || d->other_key) {
        return 0;
    }

    d->other_key = 1;
    d->key = !d->key;
    d->step = d->last;

    /* a turn to create is for both */

    if (d->last == NGX_HTTP_IOTHUB_STEP_CREATE) {
        d->booked = 1;
        d->turn = ngx_current_msec;
    }

    return 1;
}


/* exponential, with full jitter, and never sooner than the hub says */

static void
ngx_http_iothub_delivery_retry(ngx_http_iothub_delivery_t *d,
    const ngx_http_iothub_verdict_t *verdict)
{
    ngx_msec_t  wait;

    d->result = verdict->result;
    d->detail = verdict->detail;
    d->step = d->last;

    if (d->exchange.timed_out) {
        d->result = NGX_HTTP_IOTHUB_TIMEOUT;
        d->detail = "the hub did not answer in time";
    }

    wait = NGX_HTTP_IOTHUB_BACKOFF_MIN << ngx_min(d->backoff, 7);
    wait = ngx_min(wait, NGX_HTTP_IOTHUB_BACKOFF_MAX);
    wait = 1 + ngx_random() % wait;

    d->backoff++;

    ngx_http_iothub_delivery_pause(d, wait + d->retry_after * 1000);

    if (d->waiting) {
        ngx_http_iothub_metrics_add(&d->hub->counts->retries, 1);
        ngx_http_iothub_delivery_log(d, NGX_LOG_INFO,
                                     "iothub call to be repeated");
    }
}


/* a gate holds it back now, with all others */

static void
ngx_http_iothub_delivery_throttled(ngx_http_iothub_delivery_t *d,
    const ngx_http_iothub_verdict_t *verdict)
{
    d->result = verdict->result;
    d->detail = verdict->detail;
    d->step = d->last;
    d->backoff++;
}


/* what cannot be done before the deadline is not waited for */

static void
ngx_http_iothub_delivery_pause(ngx_http_iothub_delivery_t *d, ngx_msec_t wait)
{
    if ((ngx_msec_int_t) (wait + NGX_HTTP_IOTHUB_CALL_TIME)
        >= ngx_http_iothub_delivery_until(d->deadline))
    {
        ngx_http_iothub_delivery_end(d, d->result, d->detail);
        return;
    }

    d->waiting = 1;
    d->wait = ngx_current_msec + wait;
}


static void
ngx_http_iothub_delivery_end(ngx_http_iothub_delivery_t *d,
    ngx_http_iothub_result_e result, const char *detail)
{
    /* after the deadline, the outcome was told */

    if (!d->done) {
        d->result = result;
        d->detail = detail;
        d->step = NGX_HTTP_IOTHUB_STEP_END;
    }
}


static void
ngx_http_iothub_delivery_finish(ngx_http_iothub_delivery_t *d)
{
    d->done = 1;
    d->ended = ngx_current_msec;
    d->waiting = 0;
    d->exchange.late = 1;

    if (!d->running) {
        ngx_http_iothub_delivery_unask(d);
        ngx_http_iothub_throttle_drop(&d->throttle);
    }

    if (d->running && ngx_http_iothub_delivery_renews(d)) {
        ngx_http_iothub_delivery_arm(d);

    } else {
        ngx_http_iothub_delivery_release(d);

        if (d->event.timer_set) {
            ngx_del_timer(&d->event);
        }
    }

    ngx_http_iothub_delivery_count(d);

    if (d->result != NGX_HTTP_IOTHUB_DELIVERED) {
        ngx_http_iothub_delivery_log(d, NGX_LOG_ERR,
                                     "iothub event not delivered");
    }

    d->handler(d);
}


static void
ngx_http_iothub_delivery_count(ngx_http_iothub_delivery_t *d)
{
    const char                       *step;
    ngx_str_t                         text;
    ngx_http_iothub_metrics_error_t   error;

    ngx_http_iothub_metrics_delivery(d->hub->shm->metrics, d->hub->counts,
                                     d->result, d->ended - d->started,
                                     ngx_time());

    if (d->result == NGX_HTTP_IOTHUB_DELIVERED) {
        return;
    }

    ngx_memzero(&error, sizeof(ngx_http_iothub_metrics_error_t));

    error.time = ngx_time();
    error.result = d->result;
    error.status = ngx_http_iothub_delivery_status(d);

    step = ngx_http_iothub_delivery_steps[d->last].name;
    text.data = (u_char *) step;
    text.len = ngx_strlen(step);

    ngx_http_iothub_metrics_text(error.step, &text);
    ngx_http_iothub_metrics_text(error.device, &d->device_id);
    ngx_http_iothub_metrics_text(error.error, &d->hub_error);
    ngx_http_iothub_metrics_text(error.request_id, &d->hub_request_id);

    if (d->detail) {
        text.data = (u_char *) d->detail;
        text.len = ngx_strlen(d->detail);
        ngx_http_iothub_metrics_text(error.detail, &text);
    }

    ngx_http_iothub_metrics_failed(d->hub->shm->metrics, &error);
}


/* of the last call; 0: none, or no answer */

static ngx_uint_t
ngx_http_iothub_delivery_status(ngx_http_iothub_delivery_t *d)
{
    ngx_uint_t  n;

    n = ngx_min(d->calls, NGX_HTTP_IOTHUB_DELIVERY_STATUSES);

    return n ? d->statuses[n - 1] : 0;
}


/* gives the lease back and wakes those of this worker who wait for it */

static void
ngx_http_iothub_delivery_release(ngx_http_iothub_delivery_t *d)
{
    ngx_queue_t                 *q;
    ngx_http_iothub_delivery_t  *other;

    if (d->queued) {
        ngx_queue_remove(&d->queue);
        d->queued = 0;
    }

    if (d->booked) {
        ngx_http_iothub_gate_rate_return(&d->hub->shm->rate, d->hub->rate,
                                         ngx_current_msec, d->turn);
        d->booked = 0;
    }

    if (!d->leased) {
        return;
    }

    d->leased = 0;

    (void) ngx_http_iothub_identity_lease_release(d->hub->shm->identity,
                                                  d->hash, d->lease);

    for (q = ngx_queue_head(&d->hub->waiting);
         q != ngx_queue_sentinel(&d->hub->waiting);
         q = ngx_queue_next(q))
    {
        other = ngx_queue_data(q, ngx_http_iothub_delivery_t, queue);

        if (ngx_http_iothub_identity_lease_of(other->hash)
            == ngx_http_iothub_identity_lease_of(d->hash))
        {
            other->waiting = 0;
            ngx_post_event(&other->event, &ngx_posted_events);
        }
    }
}


/* the request ends: by itself, or because the sender's connection broke */

static void
ngx_http_iothub_delivery_cleanup(void *data)
{
    ngx_http_iothub_delivery_t  *d = data;

    ngx_http_iothub_delivery_unask(d);
    ngx_http_iothub_delivery_release(d);
    ngx_http_iothub_throttle_drop(&d->throttle);

    if (d->event.timer_set) {
        ngx_del_timer(&d->event);
    }

    if (d->event.posted) {
        ngx_delete_posted_event(&d->event);
    }

    if (d->running || !d->done) {

        d->exchange.handler = NULL;

        if (!d->done
            && (d->running || d->step != NGX_HTTP_IOTHUB_STEP_END))
        {
            d->result = NGX_HTTP_IOTHUB_TIMEOUT;
            d->detail = "the sender was gone before the hub had answered";
        }

        d->ended = ngx_current_msec;

        if (!d->done) {
            ngx_http_iothub_delivery_count(d);
        }

        if (d->running) {
            ngx_http_iothub_metrics_call(d->hub->counts,
                         ngx_http_iothub_delivery_steps[d->last].operation,
                         0, d->ended - d->called);
        }

        ngx_http_iothub_delivery_log(d,
                                     d->result == NGX_HTTP_IOTHUB_DELIVERED
                                         ? NGX_LOG_INFO : NGX_LOG_ERR,
                                     "iothub delivery cut off, the sender is "
                                     "gone");
    }

    d->done = 1;
    d->running = 0;
}


static void
ngx_http_iothub_delivery_log(ngx_http_iothub_delivery_t *d, ngx_uint_t level,
    const char *what)
{
    ngx_log_error(level, d->request->connection->log, 0,
                  NGX_HTTP_IOTHUB_LOG_LINE, what, &d->hub->name, &d->device_id,
                  ngx_http_iothub_delivery_steps[d->last].name,
                  &ngx_http_iothub_results[d->result].word,
                  ngx_http_iothub_delivery_status(d),
                  &d->hub_error, &d->hub_request_id, d->tries,
                  d->detail ? d->detail : "-");
}
