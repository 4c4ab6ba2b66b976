
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_pass.h"
#include "ngx_http_iothub_handler.h"


/* proxy_read_timeout of messages that nobody has set */
#define NGX_HTTP_IOTHUB_PASS_READ_TIMEOUT  5000


/* what several passes may have inherited together is said once a server */

#define ngx_http_iothub_pass_said(imcf, pass, member)                         \
    ngx_http_iothub_pass_shares(imcf, pass,                                   \
                              offsetof(ngx_http_iothub_loc_conf_t, member))


/* what the hub takes, and some more around it */

#define NGX_HTTP_IOTHUB_PASS_BUFFER  (288 * 1024)

/* what a webhook and the request of one hub call need */

#define NGX_HTTP_IOTHUB_PASS_POOL    (16 * 1024)


static ngx_int_t ngx_http_iothub_pass_find_hub(ngx_conf_t *cf,
    ngx_http_iothub_main_conf_t *imcf, ngx_http_iothub_pass_t *pass);
static ngx_int_t ngx_http_iothub_pass_alone(ngx_conf_t *cf,
    ngx_http_iothub_pass_t *pass);
static ngx_int_t ngx_http_iothub_pass_target(ngx_conf_t *cf,
    ngx_http_iothub_main_conf_t *imcf, ngx_http_iothub_pass_t *pass);
static ngx_uint_t ngx_http_iothub_pass_rewrites(ngx_conf_t *cf,
    void **loc_conf);
static ngx_array_t *ngx_http_iothub_pass_codes(ngx_conf_t *cf,
    void **loc_conf);
static ngx_int_t ngx_http_iothub_pass_message(ngx_conf_t *cf,
    ngx_http_iothub_pass_t *pass);
static void ngx_http_iothub_pass_source(ngx_http_iothub_main_conf_t *imcf,
    ngx_http_iothub_loc_conf_t *conf);
static void ngx_http_iothub_pass_memory(ngx_http_iothub_pass_t *pass);
static void ngx_http_iothub_pass_warn_return(ngx_conf_t *cf,
    ngx_http_iothub_pass_t *pass);
static void ngx_http_iothub_pass_warn_open(ngx_conf_t *cf,
    ngx_http_iothub_main_conf_t *imcf, ngx_http_iothub_pass_t *pass);
static ngx_uint_t ngx_http_iothub_pass_creates(
    ngx_http_iothub_main_conf_t *imcf, ngx_http_iothub_pass_t *pass);
static ngx_uint_t ngx_http_iothub_pass_forbids(ngx_http_iothub_pass_t *pass);
static void ngx_http_iothub_pass_warn_create(ngx_conf_t *cf,
    ngx_http_iothub_main_conf_t *imcf, ngx_http_iothub_pass_t *pass);
static void ngx_http_iothub_pass_warn_sender(ngx_conf_t *cf,
    ngx_http_iothub_pass_t *pass);
static void ngx_http_iothub_pass_warn_fields(ngx_conf_t *cf,
    ngx_http_iothub_pass_t *pass);
static void ngx_http_iothub_pass_warn_headers(ngx_conf_t *cf,
    ngx_http_iothub_main_conf_t *imcf, ngx_http_iothub_pass_t *pass);
static void ngx_http_iothub_pass_warn_header(ngx_conf_t *cf,
    ngx_http_iothub_pass_t *pass, ngx_str_t *name);
static void ngx_http_iothub_pass_warn_timeout(ngx_conf_t *cf,
    ngx_http_iothub_main_conf_t *imcf, ngx_http_iothub_hub_t *hub);
static ngx_uint_t ngx_http_iothub_pass_shares(
    ngx_http_iothub_main_conf_t *imcf, ngx_http_iothub_pass_t *pass,
    size_t offset);


ngx_int_t
ngx_http_iothub_pass_init(ngx_conf_t *cf, ngx_http_iothub_main_conf_t *imcf)
{
    ngx_uint_t               i;
    ngx_http_iothub_hub_t  **hub;
    ngx_http_iothub_pass_t  *pass;

    pass = imcf->passes.elts;

    for (i = 0; i < imcf->passes.nelts; i++) {

        if (ngx_http_iothub_pass_find_hub(cf, imcf, &pass[i]) != NGX_OK
            || ngx_http_iothub_pass_alone(cf, &pass[i]) != NGX_OK
            || ngx_http_iothub_pass_target(cf, imcf, &pass[i]) != NGX_OK
            || ngx_http_iothub_pass_message(cf, &pass[i]) != NGX_OK)
        {
            return NGX_ERROR;
        }

        ngx_http_iothub_pass_source(imcf, pass[i].conf);
        ngx_http_iothub_pass_memory(&pass[i]);
    }

    for (i = 0; i < imcf->passes.nelts; i++) {
        ngx_http_iothub_pass_warn_return(cf, &pass[i]);
        ngx_http_iothub_pass_warn_open(cf, imcf, &pass[i]);
        ngx_http_iothub_pass_warn_create(cf, imcf, &pass[i]);
        ngx_http_iothub_pass_warn_sender(cf, &pass[i]);
        ngx_http_iothub_pass_warn_fields(cf, &pass[i]);
        ngx_http_iothub_pass_warn_headers(cf, imcf, &pass[i]);
    }

    hub = imcf->hubs.elts;

    for (i = 0; i < imcf->hubs.nelts; i++) {
        ngx_http_iothub_pass_warn_timeout(cf, imcf, hub[i]);
    }

    return NGX_OK;
}


/* it may be declared after it is used */

static ngx_int_t
ngx_http_iothub_pass_find_hub(ngx_conf_t *cf,
    ngx_http_iothub_main_conf_t *imcf, ngx_http_iothub_pass_t *pass)
{
    if (pass->name.len) {
        pass->conf->hub = ngx_http_iothub_hub_find(&imcf->hubs, &pass->name);

        if (pass->conf->hub == NULL) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "unknown hub \"%V\" in iothub_pass, declare it "
                          "with \"iothub %V { ... }\" in %s:%ui",
                          &pass->name, &pass->name, pass->file, pass->line);
            return NGX_ERROR;
        }

        return NGX_OK;
    }

    if (imcf->hubs.nelts == 0) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "iothub_pass without any hub, declare one with "
                      "\"iothub NAME { ... }\" in %s:%ui",
                      pass->file, pass->line);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* of several content handlers nginx takes the last, and says nothing */

static ngx_int_t
ngx_http_iothub_pass_alone(ngx_conf_t *cf, ngx_http_iothub_pass_t *pass)
{
    if (pass->location->handler == ngx_http_iothub_handler) {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "iothub_pass without effect: another content handler, such "
                  "as proxy_pass, follows in the same location; move that "
                  "into a location of its own, and write "
                  "\"iothub_target\" to have it get the webhook, too, in "
                  "%s:%ui",
                  pass->file, pass->line);

    return NGX_ERROR;
}


/*
 * Follows the target from one iothub_pass to the next.  Where "rewrite", "if"
 * or "set" may make another way of it, a request has to find out.
 */

static ngx_int_t
ngx_http_iothub_pass_target(ngx_conf_t *cf, ngx_http_iothub_main_conf_t *imcf,
    ngx_http_iothub_pass_t *pass)
{
    ngx_uint_t                 i;
    ngx_http_core_loc_conf_t  *clcf;
    ngx_http_iothub_target_t  *first, *target;

    first = pass->conf->target;
    target = first;
    clcf = pass->location;

    if (ngx_http_iothub_target_check(cf, first, pass->server, pass->file,
                                     pass->line)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = 0; target && i < imcf->passes.nelts; i++) {

        if (ngx_http_iothub_pass_rewrites(cf, clcf->loc_conf)
            || (target->name.data[0] == '/'
                && ngx_http_iothub_pass_rewrites(cf,
                                                 pass->server->ctx->loc_conf)))
        {
            return NGX_OK;
        }

        clcf = ngx_http_iothub_target_location(target, pass->server);

        if (clcf == pass->location) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "iothub_target \"%V\" leads back to its own "
                          "iothub_pass, write \"@name\" or \"/uri\" of "
                          "another location, in %s:%ui",
                          &first->name, first->file, first->line);
            return NGX_ERROR;
        }

        if (clcf == NULL && i == 0
            && !ngx_http_iothub_pass_said(imcf, pass, target))
        {
            ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                          "no location for iothub_target \"%V\": nginx looks "
                          "for a file, write \"location = %V { ... }\" in the "
                          "server of the iothub_pass that is in %s:%ui, in "
                          "%s:%ui",
                          &first->name, &first->name, pass->file, pass->line,
                          first->file, first->line);
        }

        if (clcf == NULL || clcf->handler != ngx_http_iothub_handler) {
            return NGX_OK;
        }

        target = ((ngx_http_iothub_loc_conf_t *)
                  clcf->loc_conf[ngx_http_iothub_module.ctx_index])->target;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_http_iothub_pass_rewrites(ngx_conf_t *cf, void **loc_conf)
{
    return ngx_http_iothub_pass_codes(cf, loc_conf) != NULL;
}


/* codes are the first member of the rewrite module's configuration */

static ngx_array_t *
ngx_http_iothub_pass_codes(ngx_conf_t *cf, void **loc_conf)
{
    ngx_uint_t      i;
    ngx_array_t   **codes;
    ngx_module_t  **module;

    module = cf->cycle->modules;

    for (i = 0; module[i]; i++) {
        if (ngx_strcmp(module[i]->name, "ngx_http_rewrite_module") == 0) {
            codes = loc_conf[module[i]->ctx_index];
            return *codes;
        }
    }

    return NULL;
}


/* what would be rejected with each webhook */

static ngx_int_t
ngx_http_iothub_pass_message(ngx_conf_t *cf, ngx_http_iothub_pass_t *pass)
{
    ngx_int_t                    rc;
    ngx_http_complex_value_t    *type;
    ngx_http_iothub_template_t  *message;

    static ngx_str_t  json = ngx_string("application/json");

    message = pass->conf->message;
    type = pass->conf->content_type;

    if (message == NULL
        || (type && (type->lengths || type->value.len != json.len
                     || ngx_strncasecmp(type->value.data, json.data, json.len)
                        != 0)))
    {
        return NGX_OK;
    }

    rc = ngx_http_iothub_template_may_be_json(cf->temp_pool, message);

    if (rc == 0) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "iothub_message is no JSON, whatever its variables are, "
                      "and the content type is application/json: write JSON "
                      "in single quotes, without backslashes, or another "
                      "\"iothub_content_type\", in %s:%ui",
                      message->file, message->line);
    }

    return rc == NGX_ERROR ? NGX_ERROR : NGX_OK;
}


/* of which sources a hub's webhooks are: their metrics start at zero */

static void
ngx_http_iothub_pass_source(ngx_http_iothub_main_conf_t *imcf,
    ngx_http_iothub_loc_conf_t *conf)
{
    ngx_uint_t               i, bit;
    ngx_http_iothub_hub_t  **hub;

    bit = (ngx_uint_t) 1 << conf->source->n;

    if (conf->hub) {
        conf->hub->sources |= bit;
        return;
    }

    imcf->sources |= bit;
    hub = imcf->hubs.elts;

    for (i = 0; i < imcf->hubs.nelts; i++) {
        hub[i]->sources |= bit;
    }
}


/*
 * A webhook is in memory when it is read: to write it to a file before, and to
 * read it from there, would only take time.  nginx takes no more memory than
 * the webhook has bytes, if that is known.
 *
 * A webhook and its hub call are two requests of one pool, which would
 * otherwise be made of four blocks, one after the other.
 */

static void
ngx_http_iothub_pass_memory(ngx_http_iothub_pass_t *pass)
{
    ngx_http_core_loc_conf_t  *clcf;
    ngx_http_core_srv_conf_t  *cscf;

    clcf = pass->location;
    cscf = pass->server;

    clcf->client_body_buffer_size = ngx_max(clcf->client_body_buffer_size,
                                            NGX_HTTP_IOTHUB_PASS_BUFFER);

    cscf->request_pool_size = ngx_max(cscf->request_pool_size,
                                      NGX_HTTP_IOTHUB_PASS_POOL);
}


/* nginx returns before it comes to a content handler: events are lost */

static void
ngx_http_iothub_pass_warn_return(ngx_conf_t *cf, ngx_http_iothub_pass_t *pass)
{
    ngx_array_t               *codes;
    ngx_http_script_code_pt   *code;

    codes = ngx_http_iothub_pass_codes(cf, pass->location->loc_conf);

    if (codes == NULL) {
        return;
    }

    code = codes->elts;

    if (*code == ngx_http_script_return_code) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "iothub_pass without effect: \"return\" in the same "
                      "location answers each webhook; remove it, or write "
                      "\"iothub_accepted\" for the answer, in %s:%ui",
                      pass->file, pass->line);
    }
}


static void
ngx_http_iothub_pass_warn_open(ngx_conf_t *cf,
    ngx_http_iothub_main_conf_t *imcf, ngx_http_iothub_pass_t *pass)
{
    if (pass->conf->secret_set || pass->conf->signature
        || ngx_http_iothub_pass_forbids(pass)
        || !ngx_http_iothub_pass_creates(imcf, pass))
    {
        return;
    }

    ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                  "iothub_pass lets anybody who reaches it create devices: "
                  "add iothub_secret or iothub_signature, or \"iothub_secret "
                  "off\" if senders are checked otherwise, in %s:%ui",
                  pass->file, pass->line);
}


/* may one of the hubs that it may deliver to create identities? */

static ngx_uint_t
ngx_http_iothub_pass_creates(ngx_http_iothub_main_conf_t *imcf,
    ngx_http_iothub_pass_t *pass)
{
    ngx_uint_t               i;
    ngx_http_iothub_hub_t  **hub;

    hub = imcf->hubs.elts;

    for (i = 0; i < imcf->hubs.nelts; i++) {
        if ((pass->conf->hub == NULL || pass->conf->hub == hub[i])
            && hub[i]->registering != NGX_HTTP_IOTHUB_REGISTER_OFF)
        {
            return 1;
        }
    }

    return 0;
}


/* iothub_create without a variable, and no */

static ngx_uint_t
ngx_http_iothub_pass_forbids(ngx_http_iothub_pass_t *pass)
{
    ngx_http_complex_value_t  *cv;

    cv = pass->conf->create;

    return cv && cv->lengths == NULL
           && (cv->value.len == 0
               || (cv->value.len == 1 && cv->value.data[0] == '0'));
}


/* iothub_create where nothing is created, and that is inherited by no other */

static void
ngx_http_iothub_pass_warn_create(ngx_conf_t *cf,
    ngx_http_iothub_main_conf_t *imcf, ngx_http_iothub_pass_t *pass)
{
    ngx_uint_t               i;
    ngx_http_iothub_pass_t  *other;

    if (pass->conf->create == NULL || ngx_http_iothub_pass_forbids(pass)
        || ngx_http_iothub_pass_said(imcf, pass, create))
    {
        return;
    }

    other = imcf->passes.elts;

    for (i = 0; i < imcf->passes.nelts; i++) {
        if (other[i].conf->create == pass->conf->create
            && ngx_http_iothub_pass_creates(imcf, &other[i]))
        {
            return;
        }
    }

    ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                  "iothub_create is without effect, as the hub has \"register "
                  "off;\": write \"register missing;\", or no iothub_create, "
                  "in %s:%ui",
                  pass->file, pass->line);
}


/* what the sender does not wait for, or sends and nginx refuses */

static void
ngx_http_iothub_pass_warn_sender(ngx_conf_t *cf, ngx_http_iothub_pass_t *pass)
{
    ngx_http_core_loc_conf_t  *clcf;
    ngx_http_iothub_source_t  *source;

    clcf = pass->location;
    source = pass->conf->source;

    if (source->patience && pass->conf->deadline >= source->patience) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "iothub_deadline is %M s, and \"%V\" gives up after "
                      "%M s: it takes what is delivered later for failed; "
                      "write less, in %s:%ui",
                      pass->conf->deadline / 1000, &source->name,
                      source->patience / 1000, pass->file, pass->line);
    }

    if (clcf->client_max_body_size
        && clcf->client_max_body_size < source->most)
    {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "client_max_body_size is %O, and \"%V\" sends up to "
                      "%O bytes: nginx answers 413 to the rest; write more, "
                      "in %s:%ui",
                      clcf->client_max_body_size, &source->name,
                      source->most, pass->file, pass->line);
    }
}


/* what each event is rejected without, and nobody says where it lies */

static void
ngx_http_iothub_pass_warn_fields(ngx_conf_t *cf, ngx_http_iothub_pass_t *pass)
{
    ngx_http_iothub_loc_conf_t  *conf;

    conf = pass->conf;

    if (conf->fields[NGX_HTTP_IOTHUB_DEVICE_ID] == NULL
        && !ngx_http_iothub_source_has(conf->source,
                                       NGX_HTTP_IOTHUB_DEVICE_ID))
    {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "each event is rejected, as \"%V\" does not say where "
                      "its device id lies: write iothub_device_id, in %s:%ui",
                      &conf->source->name, pass->file, pass->line);
    }

    if (conf->match && conf->fields[NGX_HTTP_IOTHUB_EVENT] == NULL
        && !ngx_http_iothub_source_has(conf->source, NGX_HTTP_IOTHUB_EVENT))
    {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "each event is rejected, as \"%V\" does not say where "
                      "its name lies, which iothub_match wants: write "
                      "iothub_event, or no iothub_match, in %s:%ui",
                      &conf->source->name, pass->file, pass->line);
    }
}


static void
ngx_http_iothub_pass_warn_headers(ngx_conf_t *cf,
    ngx_http_iothub_main_conf_t *imcf, ngx_http_iothub_pass_t *pass)
{
    ngx_uint_t                    i;
    ngx_http_iothub_signature_t  *signature;

    signature = pass->conf->signature;

    if (pass->conf->secret
        && !ngx_http_iothub_pass_said(imcf, pass, secret))
    {
        ngx_http_iothub_pass_warn_header(cf, pass,
                                         &pass->conf->secret->header);
    }

    if (signature == NULL
        || ngx_http_iothub_pass_said(imcf, pass, signature))
    {
        return;
    }

    for (i = 0; i < NGX_HTTP_IOTHUB_SIGNATURE_HEADERS; i++) {
        ngx_http_iothub_pass_warn_header(cf, pass, &signature->headers[i]);
    }
}


/* nginx drops some headers, and then nobody gets in */

static void
ngx_http_iothub_pass_warn_header(ngx_conf_t *cf, ngx_http_iothub_pass_t *pass,
    ngx_str_t *name)
{
    u_char      ch;
    ngx_uint_t  i;

    if (!pass->server->ignore_invalid_headers) {
        return;
    }

    for (i = 0; i < name->len; i++) {
        ch = name->data[i];

        if (!((ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9')
              || ch == '-'
              || (ch == '_' && pass->server->underscores_in_headers)))
        {
            break;
        }
    }

    if (i == name->len) {
        return;
    }

    ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                  "nginx drops the header \"%V\" that iothub_secret or "
                  "iothub_signature wants: write \"%s\" into the server, in "
                  "%s:%ui",
                  name, name->data[i] == '_' ? "underscores_in_headers on;"
                                             : "ignore_invalid_headers off;",
                  pass->file, pass->line);
}


/* a call that hangs until the last deadline leaves no time to repeat it */

static void
ngx_http_iothub_pass_warn_timeout(ngx_conf_t *cf,
    ngx_http_iothub_main_conf_t *imcf, ngx_http_iothub_hub_t *hub)
{
    ngx_uint_t                 i;
    ngx_msec_t                 deadline, longest;
    ngx_http_iothub_pass_t    *pass;
    ngx_http_upstream_conf_t  *ucf;

    longest = 0;
    pass = imcf->passes.elts;

    for (i = 0; i < imcf->passes.nelts; i++) {

        if (pass[i].conf->hub && pass[i].conf->hub != hub) {
            continue;
        }

        deadline = pass[i].conf->deadline ? pass[i].conf->deadline
                                          : pass[i].conf->source->deadline;
        longest = ngx_max(longest, deadline);
    }

    /* upstream is the first member of nginx's proxy configuration */

    ucf = hub->proxy[NGX_HTTP_IOTHUB_PROXY_MESSAGES];

    if (longest == 0 || ucf->read_timeout <= NGX_HTTP_IOTHUB_PASS_READ_TIMEOUT
        || ucf->read_timeout < longest)
    {
        return;
    }

    ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                  "proxy_read_timeout of hub \"%V\" is %M s, and its webhooks "
                  "are answered after %M s at the latest: a message that "
                  "hangs is not sent again; write less, such as 5s, in %s:%ui",
                  &hub->name, ucf->read_timeout / 1000, longest / 1000,
                  hub->file, hub->line);
}


/* has an earlier one of the server the same configuration there? */

static ngx_uint_t
ngx_http_iothub_pass_shares(ngx_http_iothub_main_conf_t *imcf,
    ngx_http_iothub_pass_t *pass, size_t offset)
{
    ngx_http_iothub_pass_t  *earlier;

    for (earlier = imcf->passes.elts; earlier < pass; earlier++) {
        if (earlier->server == pass->server
            && *(void **) ((u_char *) earlier->conf + offset)
               == *(void **) ((u_char *) pass->conf + offset))
        {
            return 1;
        }
    }

    return 0;
}
