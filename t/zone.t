#!/usr/bin/perl

# A hub's shared memory: its least size, what of it outlives a reload, and a
# restart by its state file.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0, hostname => 'contoso.azure-devices.net',
                  args => ['--hostname', 'moved.azure-devices.net']);
my $state = $t->dir . '/contoso.state';


# With "register first", a device that the cache does not know costs a call of
# the registry: 409, as all of them exist.

sub conf {
    my (%o) = @_;

    my $block = $hub->block('register first rate=off; ' . ($o{hub} // ''));

    $block =~ s/$_ \S+;/$_ $o{$_};/ for grep { $o{$_} } 'hostname', 'policy';

    return $block . ($o{http} // '') . <<'CONF';

    iothub_secret off;

    server {
        listen 127.0.0.1:%%PORT_8080%%;
        location / { iothub_pass contoso; }
    }

CONF
}


# asks(DEVICES): the kinds of the exchanges that a webhook of each costs

sub asks {
    my (@devices) = @_;

    $hub->forget;

    my @answers = map { $t->post('/', "event=temp&coreid=$_&data=1")->{status} }
        @devices;

    return join ' ', map({ $_->{op} } $hub->journal), @answers;
}


# ---- size

my (undef, $output) = $t->nginx_t(conf(hub => 'zone 4k;'));

my ($least) = $output =~ /is too small, it needs at least (\d+)k/
    or BAIL_OUT("no least size in: $output");

is(($t->nginx_t(conf(hub => 'zone ' . ($least - 1) . 'k;')))[0], 1,
   'one less than the least is too small');

$hub->add(map { "e$_" } 1 .. 3);

$t->nginx(conf(hub => "zone ${least}k;"));
is(asks('e1'), 'create send 204', 'the least size works');
is(asks('e1'), 'send 204', 'and remembers');
$t->stop;

unlike($t->error_log, qr/no memory/, 'and says nothing about memory');


# ---- reload

$t->nginx(conf());
is(asks('e1', 'e2'), 'create send create send 204 204',
   'an empty cache knows nobody');
ok($t->reload(undef, wait_old => 1), 'reloaded');
is(asks('e1', 'e2', 'e3'), 'send send create send 204 204 204',
   'the cache is kept over a reload');

ok($t->reload(conf(http => ' server_tokens off; ', hub => 'token_scope hub;'),
              wait_old => 1), 'reloaded with another configuration');
is(asks('e1', 'e2', 'e3'), 'send send send 204 204 204', 'and kept');

ok($t->reload(conf(hub => 'zone 2m;'), wait_old => 1), 'another size');
is(asks('e1'), 'create send 204', 'starts empty');

ok($t->reload(conf(hub => 'zone 2m;',
                   hostname => 'moved.azure-devices.net'), wait_old => 1),
   'another host');
is(asks('e1'), 'create send 204', 'starts empty');

# a misspelled policy holds back nobody once it is put right

$t->allow(qr/\[crit\].* iothub hub "contoso" refuses every key of policy/);

ok($t->reload(conf(policy => 'getaway'), wait_old => 1), 'a wrong policy');

for my $n (1 .. 2) {
    $t->post('/', "event=temp&coreid=e$_&data=1") for 1 .. 3;
}

like($t->error_log, qr/gate closed, hub: "contoso", gate: send/,
     'closes a gate');
ok($t->reload(conf(), wait_old => 1), 'the right one');
is(asks('e1'), 'create send 204', 'opens it');

$t->stop;
ok(!-e $state, 'without state= there is no file');


# ---- restart

my %kept = (hub => 'zone 1m state=contoso.state;');

sub starts {
    my (%o) = @_;

    unlink $t->dir . '/error.log';
    $t->nginx(conf(%kept, %o));
}

# the mode of the file must not be left to this
umask 0;

$hub->disable('e3');

starts();
unlike($t->error_log, qr/\[(?:warn|error)\]/, 'no file yet: no word about it');
is(asks('e1', 'e2'), 'create send create send 204 204', 'empty at first');
is(asks('e3'), 'create send get 422', 'a disabled device is asked about');

$t->stop;

ok(-f $state, 'saved at the end');
is(sprintf('%04o', (stat $state)[2] & 07777), '0600', 'for nobody else');
ok(!-e "$state.tmp", 'nothing else is left');

my $saved = $t->read_file('contoso.state');

unlike($saved, qr/e1|e2|e3/, 'it holds no device id');

starts();
is(asks('e1', 'e2'), 'send send 204 204', 'restored: the devices are known');
is(asks('e3'), '422', 'and who is blocked');
$t->stop('TERM');

starts();
is(asks('e1', 'e2'), 'send send 204 204', 'a fast stop saves, too');

# what a running nginx learns is in the next state
$hub->add('e4');
is(asks('e4'), 'create send 204', 'a new device');
$t->stop;

starts();
is(asks('e4'), 'send 204', 'is saved with the others');
$t->stop;

$saved = $t->read_file('contoso.state');


# ---- what is no state of this hub

sub starts_empty {
    my ($name, $content, $warning, %o) = @_;

    $t->write_file('contoso.state', $content);

    starts(%o);
    is(scalar $t->log_lines(qr/\[warn\].*$warning/), 1, "$name: a warning");
    is(asks('e1'), 'create send 204', "$name: starts empty");
    $t->stop;

    starts(%o);
    is(scalar $t->log_lines(qr/\[warn\]/), 0, "$name: saved anew");
    is(asks('e1'), 'send 204', "$name: restored after that");
    $t->stop;
}

my $damaged = 'contoso.state" is damaged, identity cache of hub "contoso" '
    . 'starts empty';
my $other = 'contoso.state" is of another host or zone size, identity cache '
    . 'of hub "contoso" starts empty';

sub flipped {
    my ($at) = @_;

    my $bytes = $saved;

    substr($bytes, $at, 1) = chr(ord(substr $bytes, $at, 1) ^ 1);

    return $bytes;
}

starts_empty('an empty file', '', $damaged);
starts_empty('a truncated file', substr($saved, 0, -1), $damaged);
starts_empty('half a file', substr($saved, 0, length($saved) / 2), $damaged);
starts_empty('a longer file', $saved . "\0", $damaged);
starts_empty('a file that is none', "hello\n" x 1000, $damaged);
starts_empty('a bit flipped in the middle', flipped(length($saved) / 2),
             $damaged);
starts_empty('a bit flipped at the end', flipped(length($saved) - 1),
             $damaged);
starts_empty('a file of another host', $saved, $other,
             hostname => 'moved.azure-devices.net');
starts_empty('a file of another size', $saved, $other,
             hub => 'zone 2m state=contoso.state;');


# ---- a file that can not be written

starts(hub => 'zone 1m state=nowhere/contoso.state;');
is(asks('e1'), 'create send 204', 'a folder that is not there: works');
ok($t->stop, 'and ends well');
is(scalar $t->log_lines(qr/\[error\].*tmp" failed, .* is not saved/), 1,
   'and says so');

# a folder in its place, which even root can not read as a file

$t->allow(qr/\[crit\] .*contoso\.state" failed \(21: /);

unlink $state;
mkdir $state or die "$state: $!\n";

starts();
is(scalar $t->log_lines(qr/\[warn\].*starts empty/), 1,
   'a folder in its place: a warning');
is(asks('e1'), 'create send 204', 'starts empty');
ok($t->stop, 'and ends well');
is(scalar $t->log_lines(qr/\[error\].*could not be written/), 1,
   'and says that it is not saved');
ok(!-e "$state.tmp", 'and leaves nothing');

$t->done;
