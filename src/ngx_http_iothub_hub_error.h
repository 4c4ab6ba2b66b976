
/* Copyright (C) the ngx_http_iothub_module authors */


/*
 * hub_error: what a hub's answer means.
 *
 * Reads the name and the code of an error out of an answer, and says by one
 * table what a delivery does next and which result its sender gets if it
 * ends there.  Pure, without allocation, and without trust in the answer:
 * it may be empty, cut off, HTML or garbage.
 */


#ifndef _NGX_HTTP_IOTHUB_HUB_ERROR_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_HUB_ERROR_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_http_iothub_outcome.h"


/* a longer name is none */
#define NGX_HTTP_IOTHUB_HUB_ERROR_NAME_MAX  64

/* more of an answer than this is not searched for an error */
#define NGX_HTTP_IOTHUB_HUB_ERROR_SCAN_MAX  8192


/* bits, as a row of the table may be about several */

typedef enum {
    NGX_HTTP_IOTHUB_OPERATION_SEND = 0x1,
    NGX_HTTP_IOTHUB_OPERATION_CREATE = 0x2,
    NGX_HTTP_IOTHUB_OPERATION_ASK = 0x4
} ngx_http_iothub_operation_e;


typedef enum {
    NGX_HTTP_IOTHUB_ACTION_DONE = 0,  /* the operation succeeded */
    NGX_HTTP_IOTHUB_ACTION_CREATE,    /* the hub has no such identity */
    NGX_HTTP_IOTHUB_ACTION_OTHER_KEY, /* the token is refused */
    NGX_HTTP_IOTHUB_ACTION_ASK,       /* the device is refused, unsaid why */
    NGX_HTTP_IOTHUB_ACTION_RETRY,     /* a fault that passes */
    NGX_HTTP_IOTHUB_ACTION_THROTTLED,
    NGX_HTTP_IOTHUB_ACTION_QUOTA,
    NGX_HTTP_IOTHUB_ACTION_DISABLED,  /* the identity is disabled */
    NGX_HTTP_IOTHUB_ACTION_PERMANENT  /* repeating changes nothing */
} ngx_http_iothub_action_e;


typedef enum {
    NGX_HTTP_IOTHUB_DEVICE_UNKNOWN = 0,
    NGX_HTTP_IOTHUB_DEVICE_ENABLED,
    NGX_HTTP_IOTHUB_DEVICE_DISABLED
} ngx_http_iothub_device_status_e;


typedef struct {
    ngx_uint_t                 code;    /* 404001; 0 if there is none */

    /*
     * DeviceNotFound; only A-Z a-z 0-9 _, or empty: fit for the log.
     * Points into the header or the body, or to a constant.
     */
    ngx_str_t                  name;

    /* a 401 whose text says that the hub does not contain the device */
    unsigned                   unknown_device:1;
} ngx_http_iothub_hub_error_t;


typedef struct {
    ngx_http_iothub_action_e   action;
    ngx_http_iothub_result_e   result;  /* if the delivery ends here */
    const char                *detail;  /* a constant, for people; never NULL */
} ngx_http_iothub_verdict_t;


/*
 * Reads the error of an answer.  header is the value of iothub-errorcode,
 * body what there is of the answer's body; both may be empty.  An answer of
 * status 2xx has none, whatever it holds.
 *
 * The name is the header's, else the body's; the code is the body's.  Two
 * formats of bodies are known, both read without parsing JSON:
 *   {"Message":"ErrorCode:DeviceNotFound;...","ExceptionMessage":"..."}
 *   {"Message":"{\"errorCode\":404001,\"message\":...}", ...}
 * Either place may hold a number, in quotes or not, or a name.  If only one
 * of code and name is there, and the table knows it, the other is filled in.
 *
 * unknown_device is set at status 401 only, if the text says "not contain",
 * "not found", "not exist" or "not registered" together with "device", in
 * any case, or if the name is DeviceNotFound.  The hub says "IotHub '...'
 * does not contain the specified device '...'"; a device id can not forge
 * it, as it holds no blank.
 * https://learn.microsoft.com/azure/iot-hub/troubleshoot-error-codes
 */

void ngx_http_iothub_hub_error_parse(ngx_uint_t status, ngx_str_t *header,
    ngx_str_t *body, ngx_http_iothub_hub_error_t *err);

/*
 * What to do next.  status 0 is no answer: not connected, TLS refused,
 * timed out, cut off.  err may be NULL.  Never NULL; the verdict is static
 * and read-only.
 *
 * DONE is said of
 *   a send: 200, 201, 202, 204.  The hub's is 204; any other 2xx is none of
 *     the hub's answers, and not taken for one (the Java SDK takes 200 and
 *     204, C and Node any below 300);
 *   a create: any 2xx, as the send that follows shows whether it is true;
 *     409, unless it names GenericConflict or DeviceLocked; 412;
 *   an ask: 200.  204 is an identity that is not there.
 */

const ngx_http_iothub_verdict_t *ngx_http_iothub_hub_error_classify(
    ngx_http_iothub_operation_e operation, ngx_uint_t status,
    ngx_http_iothub_hub_error_t *err);

/*
 * Reads "status" of the root object of an identity document, the answer to
 * an ask.  UNKNOWN if it is not there, says something else, is there twice
 * with different values, or if the text does not start as an object.  The
 * text is not validated.  It holds the device's keys: never log it.
 */

ngx_http_iothub_device_status_e ngx_http_iothub_hub_error_device_status(
    ngx_str_t *body);

/*
 * Reads a Retry-After, in seconds or an HTTP date, against now (seconds
 * since 1970).  Returns seconds from 1 to 86400; 0 if there is none, it is
 * past, or it is not understood.
 */

ngx_uint_t ngx_http_iothub_hub_error_retry_after(ngx_str_t *value,
    time_t now);


#endif /* _NGX_HTTP_IOTHUB_HUB_ERROR_H_INCLUDED_ */
