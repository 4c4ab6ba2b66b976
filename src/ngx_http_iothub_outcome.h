
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * outcome: how a delivery ends.  The words that the log, the variables and
 * the senders see, each with its default answer, are rows of one table.
 */

#ifndef _NGX_HTTP_IOTHUB_OUTCOME_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_OUTCOME_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


typedef enum {
    NGX_HTTP_IOTHUB_NO_RESULT = 0,
    NGX_HTTP_IOTHUB_DELIVERED,
    NGX_HTTP_IOTHUB_FILTERED,
    NGX_HTTP_IOTHUB_UNAUTHORIZED,
    NGX_HTTP_IOTHUB_BAD_METHOD,
    NGX_HTTP_IOTHUB_BAD_MEDIA_TYPE,
    NGX_HTTP_IOTHUB_MALFORMED,
    NGX_HTTP_IOTHUB_REJECTED,
    NGX_HTTP_IOTHUB_TOO_LARGE,
    NGX_HTTP_IOTHUB_BLOCKED,
    NGX_HTTP_IOTHUB_REFUSED,
    NGX_HTTP_IOTHUB_THROTTLED,
    NGX_HTTP_IOTHUB_CREATION_LIMITED,
    NGX_HTTP_IOTHUB_QUOTA,
    NGX_HTTP_IOTHUB_UNAVAILABLE,
    NGX_HTTP_IOTHUB_CREDENTIALS,
    NGX_HTTP_IOTHUB_MISCONFIGURED,
    NGX_HTTP_IOTHUB_TIMEOUT,
    NGX_HTTP_IOTHUB_RESULTS
} ngx_http_iothub_result_e;


typedef struct {
    ngx_str_t   word;          /* $iothub_result and "code" of the answer */
    ngx_uint_t  status;        /* default answer; 0: iothub_accepted */
    unsigned    success:1;     /* the sender gets iothub_accepted */
    unsigned    rejectable:1;  /* iothub_rejected applies */
    unsigned    retry_after:1; /* the answer carries Retry-After */
    ngx_str_t   title;         /* "title" of the problem document */
} ngx_http_iothub_result_t;


/*
 * The shape of each line about an event in the error log: what has happened,
 * names of hub, device and step, result, status of the last call, the hub's
 * error and request id, messages sent, and the reason.
 */

#define NGX_HTTP_IOTHUB_LOG_LINE                                              \
    "%s, hub: \"%V\", device: \"%V\", step: %s, result: %V, "                 \
    "hub status: %ui, hub error: \"%V\", hub request id: \"%V\", "            \
    "tries: %ui: %s"


/* Indexed by ngx_http_iothub_result_e; static, read-only. */
extern const ngx_http_iothub_result_t
    ngx_http_iothub_results[NGX_HTTP_IOTHUB_RESULTS];


#endif /* _NGX_HTTP_IOTHUB_OUTCOME_H_INCLUDED_ */
