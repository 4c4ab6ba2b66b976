
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * throttle: a delivery before the gates of its hub.
 *
 * Says whether a call may go now, later or not at all, and what an answer
 * does to the gates: which faults close which gate, for how long, and when
 * one opens again.  The words themselves are the gate room's.
 */

#ifndef _NGX_HTTP_IOTHUB_THROTTLE_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_THROTTLE_H_INCLUDED_


#include "ngx_http_iothub_hub_error.h"
#include "ngx_http_iothub_zone.h"


typedef struct {

    /* filled by the caller */

    ngx_http_iothub_hub_t          *hub;
    uint64_t                        hash;      /* of the device */
    ngx_log_t                      *log;

    /* why a call may not go; detail is a constant */

    ngx_http_iothub_result_e        result;
    const char                     *detail;
    ngx_msec_t                      wait;      /* ms; 0: do not wait */

    /* when to come again, in seconds, after NGX_BUSY or an answer */

    ngx_uint_t                      retry_after;

    /* private */

    uint64_t                        probes[NGX_HTTP_IOTHUB_GATES];
    ngx_uint_t                      probing;   /* some of them are set */
    ngx_uint_t                      polls;
    ngx_msec_t                      sent;      /* the first message */
} ngx_http_iothub_throttle_t;


/*
 * Before a call.  NGX_OK: it may go, and this may have become a gate's probe,
 * which is to be kept or dropped.  NGX_BUSY: result, detail and retry_after
 * say why not; after wait, it may be asked again.
 */

ngx_int_t ngx_http_iothub_throttle_enter(ngx_http_iothub_throttle_t *th,
    ngx_http_iothub_operation_e operation);

/*
 * NGX_OK: the device was refused within the last seconds; result, detail and
 * retry_after say so.  Else NGX_DECLINED.
 */

ngx_int_t ngx_http_iothub_throttle_suspected(ngx_http_iothub_throttle_t *th);

/*
 * After a call: closes what the answer closes, and ends a probe where the
 * answer tells how the gate is.  throttled is how many calls of the delivery
 * in a row were throttled before, retry_after what the hub asked for, in
 * seconds.
 */

void ngx_http_iothub_throttle_answered(ngx_http_iothub_throttle_t *th,
    ngx_http_iothub_operation_e operation, ngx_http_iothub_action_e action,
    ngx_uint_t throttled, ngx_uint_t retry_after);

/* A message was refused by every key, and it is not known to be blocked. */

void ngx_http_iothub_throttle_refused(ngx_http_iothub_throttle_t *th);

/*
 * Is it likely that messages are refused for all devices?  1 unless one was
 * accepted since the delivery began to send.
 */

ngx_uint_t ngx_http_iothub_throttle_doubts(ngx_http_iothub_throttle_t *th);

/* Was none accepted for a minute? */

ngx_uint_t ngx_http_iothub_throttle_quiet(ngx_http_iothub_throttle_t *th);

/* A message was accepted. */

void ngx_http_iothub_throttle_accepted(ngx_http_iothub_throttle_t *th);

/* The registry refused to create an identity by every key. */

void ngx_http_iothub_throttle_registry_refused(
    ngx_http_iothub_throttle_t *th);

/* The registry gave no answer to a creation that nobody waits for. */

void ngx_http_iothub_throttle_registry_silent(
    ngx_http_iothub_throttle_t *th);

/* Each second while probing: the probe goes on. */

void ngx_http_iothub_throttle_keep(ngx_http_iothub_throttle_t *th);

/* Gives back the probes of a call that is not made after all. */

void ngx_http_iothub_throttle_leave(ngx_http_iothub_throttle_t *th,
    ngx_http_iothub_operation_e operation);

/*
 * How a gate is, for people; changes nothing.  NGX_OK: open, or about to be
 * tried; NGX_BUSY: closed for left_ms yet, for that reason.
 */

ngx_int_t ngx_http_iothub_throttle_gate(ngx_http_iothub_hub_t *hub,
    ngx_http_iothub_gate_e which, ngx_msec_t *left_ms,
    ngx_http_iothub_result_e *reason);

/* The name of a gate. */

const char *ngx_http_iothub_throttle_gate_name(ngx_http_iothub_gate_e which);

/* How long a creation that came now would wait for its turn, ms. */

ngx_msec_t ngx_http_iothub_throttle_backlog(ngx_http_iothub_hub_t *hub);

/* Gives back a probe that comes to nothing: the next delivery becomes it. */

void ngx_http_iothub_throttle_drop(ngx_http_iothub_throttle_t *th);


#endif /* _NGX_HTTP_IOTHUB_THROTTLE_H_INCLUDED_ */
