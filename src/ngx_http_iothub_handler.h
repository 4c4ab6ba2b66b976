
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * handler: one webhook, from its head to its answer.  The content handler of
 * iothub_pass: who may send, then what intake, compose and delivery make of
 * it, and what the sender is told.
 */

#ifndef _NGX_HTTP_IOTHUB_HANDLER_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_HANDLER_H_INCLUDED_


#include "ngx_http_iothub_batch.h"
#include "ngx_http_iothub_delivery.h"
#include "ngx_http_iothub_event.h"
#include "ngx_http_iothub_module.h"
#include "ngx_http_iothub_webhook.h"


/* what is known of a webhook; the variables read it until the log is written */

typedef struct {
    ngx_http_request_t          *request;
    ngx_http_iothub_loc_conf_t  *conf;

    ngx_http_iothub_webhook_t    webhook;     /* or one of its elements */
    unsigned                     parsed:1;
    unsigned                     scalar:1;    /* JSON, and not looked into */
    ngx_http_variable_value_t   *variables;   /* before its own */
    ngx_http_iothub_batch_t     *batch;       /* NULL: a single event */

    ngx_http_iothub_event_t      event;
    ngx_http_iothub_delivery_t   delivery;    /* or the sum of several */
    ngx_str_t                    hub;         /* its name */

    ngx_http_iothub_result_e     result;
    const char                  *detail;
    unsigned                     answered:1;     /* or the target does */
    unsigned                     counted:1;      /* in the hub's metrics */
} ngx_http_iothub_ctx_t;


/* The content handler. */

ngx_int_t ngx_http_iothub_handler(ngx_http_request_t *r);

/* Sets the result of a webhook, or of one of its events.  Returns NGX_DONE. */

ngx_int_t ngx_http_iothub_result(ngx_http_iothub_ctx_t *ctx,
    ngx_http_iothub_result_e result, const char *detail);

/* The result, also of a webhook whose sender is gone; else NO_RESULT. */

ngx_http_iothub_result_e ngx_http_iothub_outcome(ngx_http_iothub_ctx_t *ctx);

/*
 * What is known of the webhook that r is or that r, a subrequest, was made
 * for; still there when its target answers.  NULL: it is none.
 */

ngx_http_iothub_ctx_t *ngx_http_iothub_find_ctx(ngx_http_request_t *r);

/*
 * The value of a header of the webhook, by its lower case name, or NULL.
 * data is the ngx_http_request_t.
 */

ngx_str_t *ngx_http_iothub_header_in(void *data, ngx_str_t *name);


#endif /* _NGX_HTTP_IOTHUB_HANDLER_H_INCLUDED_ */
