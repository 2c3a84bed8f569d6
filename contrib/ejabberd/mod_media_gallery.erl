%% Lets clients find the media gallery: adds the form of XEP-0128 that they look for to the disco#info of a host, and to the
%% disco#info of an account, which old iOS clients ask instead.
%%
%%   modules:
%%     mod_media_gallery:
%%       url: "https://gallery.example.org/api/"

-module(mod_media_gallery).
-behaviour(gen_mod).

-export([start/2, stop/1, reload/3, depends/2, mod_options/1, mod_opt_type/1, mod_doc/0]).
-export([disco_info/5]).

-include("xmpp.hrl").

-define(FORM_TYPE, <<"urn:xabber:http:url">>).
-define(FIELD, <<"urn:xabber:http:url:mediagallery">>).

start(Host, _Opts) ->
    ejabberd_hooks:add(disco_info, Host, ?MODULE, disco_info, 110).

stop(Host) ->
    ejabberd_hooks:delete(disco_info, Host, ?MODULE, disco_info, 110).

reload(_Host, _New, _Old) ->
    ok.

depends(_Host, _Opts) ->
    [{mod_disco, hard}].

mod_opt_type(url) ->
    econf:url([http, https]).

mod_options(_Host) ->
    [{url, undefined}].

mod_doc() ->
    #{desc => <<"Tells clients where the media gallery is (XEP-0128).">>}.

%% The form is added for the host itself and for its accounts (then the asker and the account are given as JIDs). Nodes and
%% services have their own forms.
disco_info(Forms, Host, mod_disco, <<>>, _Lang) ->
    announce(Forms, Host);
disco_info(Forms, #jid{}, #jid{lserver = Host}, <<>>, _Lang) ->
    announce(Forms, Host);
disco_info(Forms, _Host, _Module, _Node, _Lang) ->
    Forms.

announce(Forms, Host) ->
    case gen_mod:get_module_opt(Host, ?MODULE, url) of
        undefined -> Forms;
        Url -> [form(Url) | Forms]
    end.

form(Url) ->
    #xdata{type = result,
           fields = [#xdata_field{var = <<"FORM_TYPE">>, type = hidden, values = [?FORM_TYPE]},
                     #xdata_field{var = ?FIELD, values = [Url]}]}.
