#!/usr/bin/perl

# The harness itself: that it runs what it is told, and above all that it
# sees what must not be.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use IO::Socket::INET;
use Test::More;

use IoTHubTest;

my $lib = "$FindBin::Bin/lib";

my $t = IoTHubTest->new();


# files, ports, placeholders

my $file = $t->write_file('sub/file', "text\n");

is($file, $t->dir . '/sub/file', 'a file in the folder');
is((stat $file)[2] & 07777, 0600, 'that only its owner may read');
is($t->read_file('sub/file'), "text\n", 'its content');
is($t->read_file('none'), '', 'a file that is not there');

is((stat $t->write_file('open', '', 0644))[2] & 07777, 0644, 'another mode');

is($t->port(8080), $t->port, 'a port stays');
isnt($t->port(8080), $t->port(8081), 'two ports');

my $other = IoTHubTest->new();

ok(!IO::Socket::INET->new(Proto => 'udp',
    LocalAddr => '127.0.0.1:' . $other->port), 'the port is taken');

is($t->expand('%%TESTDIR%%:%%PORT_8080%%'), $t->dir . ':' . $t->port,
   'placeholders');

ok(!eval { $t->expand('%%NONSENSE%%'); 1 }, 'an unknown placeholder');
ok(!eval { $t->expand('%%HUB%%'); 1 }, 'no hub');


# nginx

my $conf = <<'CONF';

log_format body $uri:$request_body:$http_x_test;

server {
    listen 127.0.0.1:%%PORT_8080%%;
    listen 127.0.0.1:%%PORT_h2%% http2;

    access_log %%TESTDIR%%/body.log body;
    add_header X-Twice 1;
    add_header X-Twice 2;
    client_body_buffer_size 64k;

    location / { return 200 "$request_method $server_protocol"; }
    location /file { alias %%TESTDIR%%/sub/file; }
    location /body { proxy_pass http://127.0.0.1:%%PORT_8080%%/echo; }
    location /echo { return 200 "[$http_content_type]"; }
    location /none { return 204; }
    location /close { return 444; }
    location /chunked {
        alias %%TESTDIR%%/long;
        sub_filter_types *;
        sub_filter text texts;
        sub_filter_once off;
    }
}

CONF

$t->nginx($conf);

is($t->worker_pids, 2, 'two workers');
ok(!eval { $t->nginx($conf); 1 }, 'nginx is not started twice');

my $r = $t->get('/x', 'X-Test' => 'a header');

is($r->{status}, 200, 'status');
is($r->{body}, 'GET HTTP/1.1', 'body');
is($r->{headers}{'x-twice'}, '1, 2', 'repeated header');
is($r->{complete}, 1, 'complete');
like($r->{raw}, qr/^HTTP\/1\.1 200 OK\r\n/, 'raw answer');
ok($t->wait_for_log(qr/^\/x:-:a header$/, file => 'body.log'), 'log line');
ok(!$t->wait_for_log(qr/nonsense/, timeout => 0.1), 'no such log line');

is($t->get('/file')->{body}, "text\n", 'workers can read the folder');
is($t->get('/none')->{status}, 204, 'an answer without a body');
is($t->request('HEAD', '/')->{body}, '', 'HEAD');
is($t->get('/close')->{status}, 0, 'no answer');

$t->write_file('long', 'text ' x 20000);
$r = $t->get('/chunked');

is($r->{headers}{'transfer-encoding'}, 'chunked', 'a chunked answer');
ok($r->{body} eq 'texts ' x 20000, 'its body');

is($t->post('/body', 'a=1')->{body}, '[application/x-www-form-urlencoded]',
   'a form');
is($t->post('/body', '{"a":1}')->{body}, '[application/json]', 'JSON');
is($t->post('/body', 'a', 'content-type' => 'text/plain')->{body},
   '[text/plain]', 'a given type');
is($t->post('/body', 'a', 'Content-Type' => undef)->{body}, '[]', 'no type');

ok($t->wait_for_log(qr/^\/body:a=1:/, file => 'body.log'), 'a body');

$t->post('/body', ['one,', '', 'two'], 'X-Test' => 'chunked');

ok($t->wait_for_log(qr/^\/body:one,two:chunked$/, file => 'body.log'),
   'a chunked body');

$r = $t->http(["POST /body HTTP/1.0\r\nX-Test: slow\r\nConte",
               "nt-Length: 6\r\n\r\nabc", 'def'], pause => 0.1);

is($r->{status}, 200, 'a request in slow parts');
cmp_ok($r->{time}, '>=', 0.2, 'its time');
ok($t->wait_for_log(qr/^\/body:abcdef:slow$/, file => 'body.log'),
   'its body');

SKIP: {
    skip 'no curl with HTTP/2', 3 unless $t->has_http2;

    $r = $t->http2(POST => '/body', port => $t->port('h2'), body => 'h2',
                   headers => { 'X-Test' => 'two' });

    is($r->{status}, 200, 'HTTP/2 status');
    is($r->{body}, '[application/x-www-form-urlencoded]', 'HTTP/2 body');
    ok($t->wait_for_log(qr/^\/body:h2:two$/, file => 'body.log'),
       'HTTP/2 request');
}


# many at once

my @answers = $t->parallel([map { [GET => "/n/$_"] } 1 .. 100], 20);

is(grep({ $_->{status} == 200 } @answers), 100, 'many at once');

my @order;
@answers = $t->parallel(
    ["GET /file HTTP/1.0\r\n\r\n", { uri => '/none' },
     [POST => '/body', body => 'x' x 30000]], 3,
    on_answer => sub { push @order, $_[2] });

is(join(' ', map { $_->{status} } @answers), '200 204 200',
   'answers in the order of the requests');
is("@order", '1 2 3', 'told one by one');

@answers = $t->parallel([[GET => '/close']], 1);

is($answers[0]{status}, 0, 'never an answer');
is($answers[0]{tries}, 5, 'asked five times');

@answers = $t->parallel([map { [GET => "/k/$_"] } 1 .. 2000], 20,
    keepalive => 1,
    on_answer => sub { $t->signal('HUP') if $_[2] == 500 });

is(grep({ $_->{status} == 200 } @answers), 2000,
   'kept-alive connections over a reload');


# reload, nginx -t, stop

my @before = $t->worker_pids;

ok($t->reload($conf =~ s/204/205/r, wait_old => 1), 'reload');

my %now = map { $_ => 1 } $t->worker_pids;

ok(!grep({ $now{$_} } @before), 'the old workers are gone');
is(keys %now, 2, 'two new ones');
is($t->get('/none')->{status}, 205, 'the new configuration');

ok(!$t->reload("\n\nnonsense;"), 'a reload that is refused');
is($t->log_lines(qr/\[emerg\].*"nonsense" in .*:3$/), 1, 'the line named');
$t->allow(qr/unknown directive "nonsense"/);

my ($status, $output) = $t->nginx_t("\nserver {\n    nonsense;\n}\n");

is($status, 1, 'nginx -t refuses');
like($output, qr/unknown directive "nonsense" in .*:3$/m, 'with the line');

($status, $output) = $t->nginx_t("\nevents {\n}\n\nhttp {\n    nonsense;\n}\n");

like($output, qr/unknown directive "nonsense" in .*:6$/m,
     'with the line of a whole configuration');

($status, $output) = $t->nginx_t("server { listen 127.0.0.1:%%PORT_8080%%; }");

is($status, 0, 'nginx -t accepts');
like($output, qr/test is successful/, 'and says so');

ok($t->stop, 'stop');
is($t->worker_pids, 0, 'no workers');

$t->nginx($conf, workers => 1);
is($t->worker_pids, 1, 'one worker');
ok($t->stop, 'stop');

$t->nginx($conf, main => 'master_process off;');
is($t->get('/none')->{status}, 204, 'a single process');


# what must not be: each is a test of its own, in a process of its own

sub verdict {
    my ($code, %o) = @_;

    my $end = $o{end} // '$t->done;';
    my $script = $t->write_file('verdict.t', <<"CODE");
use strict;
use warnings;
use lib '$lib';
use Test::More;
use IoTHubTest;

my \$t = IoTHubTest->new();
\$t->nginx('server { listen 127.0.0.1:%%PORT_8080%%; }');
ok(1, 'fine');

sub plant {
    open my \$log, '>>', \$t->dir . '/error.log';
    print \$log "2026/01/02 03:04:05 ", \@_, "\\n";
    close \$log;
}

$code
$end
CODE

    local $ENV{HARNESS_ACTIVE};
    delete $ENV{HARNESS_ACTIVE};

    my $output = `$^X $script 2>&1`;

    return $? >> 8, $output;
}

sub fails {
    my ($name, $pattern, @code) = @_;

    my ($status, $output) = verdict(@code);

    isnt($status, 0, "$name: fails");
    like($output, $pattern, "$name: the reason");
}

sub passes {
    my ($name, @code) = @_;

    my ($status, $output) = verdict(@code);

    is($status, 0, "$name: passes") or diag($output);
}

my $alerts = qr/^not ok \d+ - no alerts in the error log/m;
my $reports = qr/^not ok \d+ - no sanitizer or valgrind reports/m;
my $processes = qr/^not ok \d+ - all processes ended well/m;
my $alert = 'plant("[alert] 1#1: planted");';

passes('nothing', '');
fails('an alert', $alerts, $alert);
fails('an alert is shown', qr/^# .*\[alert\] 1#1: planted/m, $alert);
fails('crit', $alerts, 'plant("[crit] 1#1: planted");');
passes('error', 'plant("[error] 1#1: planted");');
passes('an alert in the text', 'plant("[error] 1#1: [alert] planted");');
passes('an allowed alert', '$t->allow(qr/planted/); ' . $alert);
passes('allowed crit', '$t->{crit} = 0; plant("[crit] 1#1: planted");');

fails('a killed worker', $alerts,
    'kill KILL => ($t->worker_pids)[0];
     $t->wait_for_log(qr/exited on signal/) or die;');

fails('an address report', $reports,
    'plant("\n==1==ERROR: AddressSanitizer: heap-use-after-free");');
fails('an undefined behaviour report', $reports,
    'plant("\nsrc/a.c:1:2: runtime error: shift exponent 64");');
fails('a valgrind report', $reports,
    '$t->write_file("valgrind.1", "==1== Invalid read of size 8");');

fails('a killed master', $processes,
    'my @w = $t->worker_pids; kill KILL => $t->master_pid, @w;');

fails('an alert, never finished', qr/no alerts in the error log:\n/,
    $alert, end => 'done_testing();');
fails('an alert, died', qr/\[alert\] 1#1: planted/, $alert, end => 'die;');
fails('nginx that does not start', qr/unknown directive "nonsense"/,
    '$t->stop; $t->nginx("nonsense;");');

passes('never finished', '', end => 'done_testing();');

for my $end ('$t->done;', 'kill TERM => $$; sleep 60;') {
    my ($dead, $output) = verdict('diag($t->dir, ":", $t->master_pid);',
                                  end => $end);
    my ($dir, $pid) = $output =~ m{^# (/\S+):(\d+)$}m;

    ok(!-e $dir, "nothing is left of a folder: $end");
    ok(!kill(0, $pid), 'nor of nginx');
}


# hubs

my $hub = $t->hub(name => 'contoso', faults => [
    { op => 'get', device => 'gone', status => 500 }]);
my $plain = $t->hub(name => 'plain', tls => 0, policies => ['more:a2V5']);

is($t->expand('%%HUB%%'), $hub->port, 'the port of the first hub');
is($t->expand('%%HUB_plain%%'), $plain->port, 'of another one');
isnt($hub->port, $plain->port, 'two hubs');
is($t->read_file($t->expand('%%KEY%%')), join('', map { "$_\n" } $hub->keys),
   'the file of its keys');
like($t->expand('%%IOTHUB%%'), qr/^iothub contoso \{ .*_certificate \S+; \}$/,
     'a block');
like($plain->block('zone 1m;'), qr/^iothub plain \{ .*tls off; zone 1m; \}$/,
     'a block with more in it');

$hub->add('one', 'two#2');
is(scalar $hub->devices, 2, 'two devices');
$hub->disable('two#2');
is(join(' ', map { $_->{status} } $hub->devices), 'enabled disabled',
   'one is disabled');
$hub->enable('two#2');
$hub->remove('one');
is(join(' ', map { "$_->{deviceId} $_->{status}" } $hub->devices),
   'two#2 enabled', 'it is enabled, the other one gone');

is($hub->faults->[0]{device}, 'gone', 'the faults');
is($hub->settings({ settle => 100 })->{settle}, 100, 'the settings');
ok(!eval { $hub->faults({}); 1 }, 'what the simulator refuses is fatal');

$r = $hub->exchange(GET => '/devices/x?api-version=2021-04-12');

is($r->{status}, 401, 'an exchange over TLS, without a token');
ok($hub->wait_for('get'), 'it is waited for');
ok(!$hub->wait_for('send', 1, 0.1), 'what does not come is not');
is($hub->journal, 1, 'the journal');
is($hub->journal(op => 'get', method => qr/^G/), 1, 'filtered');
is($hub->journal(op => 'get', method => 'PUT'), 0, 'filtered out');
is($hub->messages, 0, 'no messages');
$hub->forget;
is($hub->journal, 0, 'the journal, emptied');
is($plain->exchange(GET => '/devices/x?api-version=2021-04-12')->{status},
   401, 'an exchange without TLS');

$t->done;
