
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * delivery: event -> outcome.
 *
 * All exchanges that bring one event to the hub: the state machine that
 * finds or creates the identity, sends the message, repeats what may be
 * repeated, and ends before the deadline.  It knows no webhook and reads
 * nothing of the client: all that it needs was put into it.
 */

#ifndef _NGX_HTTP_IOTHUB_DELIVERY_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_DELIVERY_H_INCLUDED_


#include "ngx_http_iothub_exchange.h"
#include "ngx_http_iothub_hub_error.h"
#include "ngx_http_iothub_message.h"
#include "ngx_http_iothub_outcome.h"
#include "ngx_http_iothub_throttle.h"


#define NGX_HTTP_IOTHUB_DELIVERY_STATUSES  32


typedef struct ngx_http_iothub_delivery_s  ngx_http_iothub_delivery_t;

typedef void (*ngx_http_iothub_delivery_pt)(ngx_http_iothub_delivery_t *d);


typedef enum {
    NGX_HTTP_IOTHUB_STEP_LOOKUP = 0,
    NGX_HTTP_IOTHUB_STEP_SEND,
    NGX_HTTP_IOTHUB_STEP_LEASE,
    NGX_HTTP_IOTHUB_STEP_CREATE,
    NGX_HTTP_IOTHUB_STEP_ASK,
    NGX_HTTP_IOTHUB_STEP_REFUSED,
    NGX_HTTP_IOTHUB_STEP_END
} ngx_http_iothub_step_e;


struct ngx_http_iothub_delivery_s {

    /* filled by the caller */

    ngx_http_request_t             *request;   /* exchanges run on it */
    ngx_http_iothub_hub_t          *hub;
    ngx_str_t                       device_id; /* legal */
    ngx_http_iothub_message_t       message;
    ngx_msec_t                      deadline;  /* ngx_current_msec */
    unsigned                        may_create:1;

    /*
     * Called once, from the event loop or from start.  The request may be
     * finalized in it.  If running is still set, a call goes on beyond the
     * deadline: then the request must not be reused for another.
     */
    ngx_http_iothub_delivery_pt     handler;
    void                           *data;

    /* the outcome, true when the handler is called; the log reads it later */

    ngx_http_iothub_result_e        result;
    const char                     *detail;
    const char                     *identity;  /* HIT, MISS, ... or NULL */
    ngx_uint_t                      tries;     /* messages sent */
    ngx_uint_t                      calls;
    uint16_t                        statuses[NGX_HTTP_IOTHUB_DELIVERY_STATUSES];
    ngx_str_t                       hub_error;
    ngx_str_t                       hub_request_id;
    ngx_uint_t                      retry_after;   /* seconds, 0: unknown */
    ngx_msec_t                      started;
    ngx_msec_t                      ended;
    unsigned                        running:1;

    /* private */

    ngx_http_iothub_step_e          step;
    ngx_http_iothub_step_e          last;      /* taken, of the running call */
    ngx_msec_t                      wait;      /* not before, if waiting */
    uint64_t                        hash;
    uint64_t                        lease;
    ngx_msec_t                      renew;     /* lease and probe, at */
    ngx_msec_t                      turn;      /* to create, if booked */
    time_t                          sent;
    ngx_msec_t                      called;
    ngx_uint_t                      key;
    ngx_uint_t                      settled;   /* waits for a young identity */
    ngx_uint_t                      backoff;   /* failed calls */
    ngx_uint_t                      throttled; /* the last calls, in a row */
    ngx_uint_t                      polls;
    ngx_uint_t                      creates;
    ngx_uint_t                      looks;     /* for another's question */
    ngx_event_t                     event;
    ngx_queue_t                     queue;
    ngx_http_iothub_exchange_t      exchange;
    ngx_http_iothub_throttle_t      throttle;
    unsigned                        prepared:1;
    unsigned                        waiting:1;
    unsigned                        queued:1;
    unsigned                        leased:1;
    unsigned                        waited:1;  /* for this device's lease */
    unsigned                        booked:1;  /* a turn to create */
    unsigned                        other_key:1;
    unsigned                        missing:1; /* the hub said so on a send */
    unsigned                        exists:1;  /* the hub said so on a PUT */
    unsigned                        refused:1; /* a send met 401 or 403 */
    unsigned                        denied:1;  /* a PUT met 401 or 403 */
    unsigned                        asking:1;  /* for all, until answered */
    unsigned                        asked:1;
    unsigned                        not_told:1;
    unsigned                        registry_refuses:1;
    unsigned                        done:1;
};


/*
 * May be called before the start, as soon as hub and device_id are filled:
 * what is known of the device is then near when it is looked up.
 */

void ngx_http_iothub_delivery_prepare(ngx_http_iothub_delivery_t *d);

/*
 * Starts a delivery, whose memory is zeroed but for what the caller filled.
 * The handler is called in any case, perhaps before this returns.
 */

void ngx_http_iothub_delivery_start(ngx_http_iothub_delivery_t *d);


#endif /* _NGX_HTTP_IOTHUB_DELIVERY_H_INCLUDED_ */
