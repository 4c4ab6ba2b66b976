
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * batch: several events of one webhook -> one outcome.
 *
 * Events of one device go together, in their order and as few requests as
 * the hub's size limit allows; devices are delivered to side by side, a few
 * at once.
 */

#ifndef _NGX_HTTP_IOTHUB_BATCH_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_BATCH_H_INCLUDED_


#include "ngx_http_iothub_delivery.h"


typedef struct {
    ngx_http_iothub_hub_t       *hub;
    ngx_str_t                    device_id;
    ngx_http_iothub_message_t    message;
    unsigned                     may_create:1;

    /* set by the caller if there is nothing to deliver, else the outcome */

    ngx_http_iothub_result_e     result;
    const char                  *detail;
    ngx_uint_t                   n;         /* its place in the webhook */
} ngx_http_iothub_batch_event_t;


typedef struct ngx_http_iothub_batch_s  ngx_http_iothub_batch_t;

typedef void (*ngx_http_iothub_batch_pt)(ngx_http_iothub_batch_t *b);


struct ngx_http_iothub_batch_s {

    /* filled by the caller */

    ngx_http_request_t          *request;   /* exchanges run on it */
    ngx_msec_t                   deadline;  /* ngx_current_msec */
    ngx_array_t                  events;    /* ngx_http_iothub_batch_event_t */
    ngx_uint_t                   failed;    /* the caller's, of them */

    /* called once, perhaps before start returns */

    ngx_http_iothub_batch_pt     handler;
    void                        *data;

    /*
     * What the log shows of all deliveries together: the statuses of all
     * calls, the hub's error of the one that failed last.  Filled as the
     * deliveries end; running as in a delivery.
     */
    ngx_http_iothub_delivery_t  *total;

    /* the outcome */

    ngx_http_iothub_result_e     result;
    const char                  *detail;
    ngx_uint_t                   shown;     /* the event that it is of */

    /* private */

    ngx_array_t                  queues;    /* of one device each */
    ngx_uint_t                   next;      /* queue to start */
    ngx_uint_t                   active;
    unsigned                     starting:1;
    unsigned                     done:1;
};


/* Starts it, with zeroed private members.  NGX_ERROR: no memory. */

ngx_int_t ngx_http_iothub_batch_start(ngx_http_iothub_batch_t *b);


#endif /* _NGX_HTTP_IOTHUB_BATCH_H_INCLUDED_ */
