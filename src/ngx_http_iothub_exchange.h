
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * exchange: one HTTP request to the hub and its answer.
 *
 * A background subrequest that is handed to nginx's proxy on the hub's
 * generated server, without running a phase; the module's own filters
 * consume the answer.  The only room that knows ngx_http_subrequest().
 */

#ifndef _NGX_HTTP_IOTHUB_EXCHANGE_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_EXCHANGE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_http_iothub_hub.h"


typedef struct ngx_http_iothub_exchange_s  ngx_http_iothub_exchange_t;

typedef void (*ngx_http_iothub_exchange_pt)(ngx_http_iothub_exchange_t *ex);


/* a header of the request; the bytes belong to the caller until the end */

typedef struct {
    ngx_str_t                       key;
    ngx_str_t                       lowcase;
    ngx_str_t                       value;
} ngx_http_iothub_header_t;


struct ngx_http_iothub_exchange_s {

    /* the request, filled by the caller */

    ngx_http_iothub_hub_t          *hub;
    ngx_http_iothub_endpoint_e      endpoint;
    ngx_http_iothub_proxy_e         proxy;
    ngx_uint_t                      key;       /* 0 or 1 */
    ngx_str_t                       device_id;
    ngx_uint_t                      method;    /* NGX_HTTP_... */
    ngx_str_t                       method_name;
    ngx_str_t                       uri;       /* escaped, with the query */
    ngx_http_iothub_header_t       *headers;
    ngx_uint_t                      nheaders;
    ngx_chain_t                    *body;      /* NULL: none */
    off_t                           body_size;
    size_t                          answer_max;

    ngx_http_iothub_exchange_pt     handler;   /* called once, at the end */
    void                           *data;

    /* the answer; bytes come from the pool of the request it ran on */

    ngx_uint_t                      status;    /* 0: no answer */
    ngx_str_t                       answer;    /* its body, up to answer_max */
    ngx_str_t                       error;     /* iothub-errorcode */
    ngx_str_t                       request_id;  /* x-ms-request-id */
    ngx_str_t                       retry_after;
    ngx_str_t                       date;
    ngx_uint_t                      repeats;   /* nginx's own, of dead ones */
    unsigned                        complete:1;  /* the answer has its end */
    unsigned                        timed_out:1; /* sent, no answer in time */
    unsigned                        cut:1;       /* late: but its head */

    /*
     * Set by the caller when the request goes on while the exchange runs: an
     * answer that does not come in one piece is not read to its end then.
     */
    unsigned                        late:1;

    /* private */

    ngx_http_request_t             *request;
    ngx_http_post_subrequest_t      post;
};


/*
 * Starts an exchange on r, whose pool and connection it uses.  The exchange
 * must live until its handler was called or r is destroyed.  The handler is
 * called from the event loop, never from here.  NGX_ERROR: not started.
 */

ngx_int_t ngx_http_iothub_exchange_start(ngx_http_request_t *r,
    ngx_http_iothub_exchange_t *ex);

/*
 * Gives up an exchange that runs, if not one byte of it was sent: NGX_OK, and
 * the handler is not called any more.  NGX_DECLINED: some was, it goes on.
 */

ngx_int_t ngx_http_iothub_exchange_give_up(ngx_http_iothub_exchange_t *ex);

/* Puts the filters that consume answers in place, in postconfiguration. */

void ngx_http_iothub_exchange_init(void);


#endif /* _NGX_HTTP_IOTHUB_EXCHANGE_H_INCLUDED_ */
